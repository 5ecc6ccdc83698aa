"""From a directory in Hugging Face layout to parameters. Imports families."""
