"""One file a family: its config, and rules that name its tensors, readable both ways. Imports models."""
