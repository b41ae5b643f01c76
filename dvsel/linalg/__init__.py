"""Linear algebra and ranks that several methods share."""
