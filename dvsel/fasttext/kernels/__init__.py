"""The kernels that turn a document into fastText's features and sum up their folded entries.

`folded` says what the features are and lays out the tables that are read here. Documents are taken in pieces of some
`PIECE` words: as many whole ones as go into it, or a part of a longer one. So everything between two passes stays in
the fastest cache, short documents do not wait for memory one after the other, and a document of any size needs the
same scratch. Each piece goes through passes that have hardly a branch to guess and whose steps do not wait for each
other:

1. `find_bounds`, `load_words` (`words`): where words start and end, 64 bytes at a time, and their first bytes.
2. `hash_words` (`words`): of each word fastText's hash (FNV-1a of 32 bits), and a key of 64 bits that the vocabulary is
   searched by. Both are chains from byte to byte, so all words go forward together, 8 bytes a round, on vectors.
3. `find_words` (`lookup`): where the words' entries lie.
4. `find_ngrams` (`ngrams`): for each length of n-gram, where the n-grams' entries lie.
5. `_add_entries` (`documents`): each document's sum of them.

What a piece leaves over of a long document is carried to the next: where a word that is still open began, and the
hashes of the last n - 1 words. How a document is cut depends on itself alone, and so does its sum, to the last bit.
"""
