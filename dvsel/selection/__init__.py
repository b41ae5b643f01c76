"""Selection: decide from score files which documents a budget keeps, and write the subset out."""
