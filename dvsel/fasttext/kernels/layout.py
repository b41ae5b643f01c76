"""Types that the kernels share: the folded model as they read it, their scratch, and numbers to count with.

numba compiles a function once more for a literal number, hence the typed ones, and checks the sign of each index that
is not unsigned, hence `U` around indices in hot loops.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

PIECE = 512
"""Words that go through the passes together."""

# A piece's last block begins with up to PIECE - 1 words and may hold 33; the end is a word too; and vectors of words
# and groups of bounds are written past the end.
_SPARE = 64

INT_0 = np.int64(0)
INT_1 = np.int64(1)

U = np.uint64
ZERO = np.uint64(0)
ONE = np.uint64(1)
TWO = np.uint64(2)
HALF = np.uint64(32)

Array = npt.NDArray[Any]
Int = Any  # int64 once compiled; mypy cannot type it


class Tables(NamedTuple):
    """A folded model, as the kernels read it. All arrays are flat and in C order.

    tags: uint32 (slots * stride,), of each slot a tag (0 where the slot is free), its number of features where there
    are character n-grams, and its word's `columns` entries; those are float32, as which `words` sees the same memory.
    ngrams: float32 (buckets * columns,), the entries of hashed n-grams.
    inverse: (2**64 - 1) // buckets. seed: of the words' keys. word_ngrams: 1 or more. max_chars: 0 or more. Where both
    are the least there need be no bucket. The others are as in `FastTextModel`.
    """

    tags: Array
    words: Array
    ngrams: Array
    slots: np.uint64
    stride: np.uint64
    columns: int
    buckets: np.uint64
    inverse: np.uint64
    seed: np.uint64
    word_ngrams: int
    min_chars: int
    max_chars: int


class Scratch(NamedTuple):
    """Arrays that the passes hand to each other, a number for each word of the piece.

    bounds: int64, two a word: its start and end. chunks: uint64, 8 bytes of it. sizes: uint32, how many of them.
    fnv: uint32, its hash. keys: uint64. open, open_*: the same for the words that go on after their last chunk, and
    int64, their numbers. places: uint64, of entries. weights: int64, how many features these are the sum of.
    missed: int64, numbers of words. hashes: uint64, fnv as fastText makes 64 bits of it, after those carried over.
    grams: uint64, hashes of n-grams. ends: int64, one a document: the number of words up to its end.
    """

    bounds: Array
    chunks: Array
    sizes: Array
    fnv: Array
    keys: Array
    open: Array
    open_chunks: Array
    open_sizes: Array
    open_fnv: Array
    open_keys: Array
    places: Array
    weights: Array
    missed: Array
    hashes: Array
    grams: Array
    ends: Array

    @classmethod
    def empty(cls, word_ngrams: int) -> Scratch:
        size = PIECE + word_ngrams + _SPARE
        types: dict[str, Any] = dict.fromkeys(cls._fields, np.uint64)
        types |= dict.fromkeys(("bounds", "open", "weights", "missed", "ends"), np.int64)
        types |= dict.fromkeys(("sizes", "open_sizes", "fnv", "open_fnv"), np.uint32)
        return cls(**{name: np.zeros(2 * size if name == "bounds" else size, of) for name, of in types.items()})
