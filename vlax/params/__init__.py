"""Parameters as a flat {path: array}: groups that learn or stay frozen, and how they lie on a mesh. Imports errors alone."""
