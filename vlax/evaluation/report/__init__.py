"""report.html and samples.png, of plain data, and the attention they show. Imports model."""
