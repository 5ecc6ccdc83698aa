"""Paths here and on object stores, state files, append-only lines, hub snapshots. Imports errors alone."""
