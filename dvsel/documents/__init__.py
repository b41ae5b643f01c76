"""Documents as arrays: columns of text and fields, their hashes, vectors and token counts."""
