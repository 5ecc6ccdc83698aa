"""Evaluation protocols, one TOML file each, hashed into every score. Imports scores and decoding."""
