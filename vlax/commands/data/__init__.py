"""preview, doctor and prepare. Imports data."""
