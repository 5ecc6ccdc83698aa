"""`vlax serve`: a page and an OpenAI-compatible endpoint on this machine. Imports model and the report's attention."""
