"""How compiled code is made and kept: numba functions, vector instructions, the cache."""
