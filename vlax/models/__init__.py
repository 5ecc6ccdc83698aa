"""The Flax modules: vision tower, projector, decoder, and the whole. Imports params."""
