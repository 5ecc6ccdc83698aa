"""What the terminal calls: flags, processes, errors without a stack trace. Imports everything; nothing imports it."""
