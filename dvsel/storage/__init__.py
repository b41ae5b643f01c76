"""Places of bytes, and the files that a run keeps for itself."""
