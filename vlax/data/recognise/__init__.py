"""What a file or folder is, found by looking. Imports the readers."""
