"""report.html and what it shows. Imports evaluation."""
