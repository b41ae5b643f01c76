"""Compiled code: numba functions, vector instructions, and the cache that keeps them."""
