"""Mixtures, the order of rows, and the batches that a step takes. Imports readers and text."""
