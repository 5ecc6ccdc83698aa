"""From parameters to a directory in Hugging Face layout, with a card and a check. Imports families and reading."""
