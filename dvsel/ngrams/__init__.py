"""The kernels that n-gram scorers share: tokenise, hash, look up, straight over a column's UTF-8 bytes.

`spec` defines the n-grams in plain Python and is light to import; `lookup` has `count` and `score`, which do
the same over columns with the compiled `kernels`; `unicode` has the tables that make them exact for any text.
"""
