"""This process among others: signals, what it is doing, what it waits for. Imports errors and storage."""
