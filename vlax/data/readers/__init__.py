"""One reader a kind of data: from files to `Row`s. Imports storage."""
