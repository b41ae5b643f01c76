"""Where bytes live, and the files that a run keeps for itself."""
