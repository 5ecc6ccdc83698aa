"""Rows from anywhere, arranged into batches. Imports text and storage."""
