"""The data that vlax draws itself: scenes of shapes, cell-like pictures, and what is said about them. Imports no other room."""
