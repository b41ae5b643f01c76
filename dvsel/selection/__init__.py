"""Which documents a budget keeps, decided from score files, and the subset written out."""
