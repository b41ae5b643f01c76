"""fastText classifiers folded into tables: what scores documents exactly as fastText does, many times faster.

A fastText classifier sees a document as the mean of its features' vectors, and is linear in it. So the product of a
direction (a label's vector, or the difference of two) with the mean is the mean of one number a feature, which `fold`
computes once. The features of a document are (fastText 0.9's `Dictionary::getLine`):

- Its words: what lies between white space (space, \\t, \\n, \\v, \\f, \\r) and NUL bytes. A newline, or the end of the
  text, is the word `</s>`, and so is a literal `</s>`: whichever comes first ends the document. A word that begins
  with `__label__` and is not in the vocabulary is none at all.
- Each word of the vocabulary is a feature.
- With `max_chars` > 0 so are the runs of `min_chars` to `max_chars` characters of `<word>`, hashed into buckets, of all
  words but `</s>`, and without the runs `<` and `>` themselves. A character is a byte and those after it that continue
  it (0x80 to 0xBF).
- So are the runs of 2 to `word_ngrams` words, hashed into the same buckets, unknown words included.

Words are hashed by FNV-1a to 32 bits, with each byte taken as signed; a run of words as h = h * 116049371 + hash of the
next word, in 64 bits, both from the signed 32; a hash modulo the buckets is the bucket.

All this is exact but for one thing: the vocabulary holds 31 bits of each word's key in place of its bytes, so a word
that is not in it is taken for one that is with a probability of 2e-9 (a search meets 4 taken slots on average, at 2
words to 3 slots). Words of the vocabulary are never mistaken for each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import Column
from dvsel.errors import UserError
from dvsel.fasttext.kernels.documents import add_documents, multiply
from dvsel.fasttext.kernels.layout import Scratch, Tables
from dvsel.fasttext.kernels.lookup import place_words
from dvsel.fasttext.kernels.ngrams import add_subwords
from dvsel.fasttext.tables import LONGEST_RUN, longest_run

if TYPE_CHECKING:
    from dvsel.fasttext.model import FastTextModel

Array = npt.NDArray[Any]

_ROWS_AT_ONCE = 4096
_SEEDS = 8
_LARGEST = 2**64 - 1


def fold(model: FastTextModel, directions: npt.NDArray[np.float32]) -> dict[str, Array]:
    """The arrays of a `Folded` for these directions, float32 (columns, dim), such as rows of `model.output`.

    spec: int64 (4,), the seed of the words' keys, word_ngrams, min_chars, max_chars.
    words: uint32 (slots, width + 1 or 2), of each slot the tag of its word (0 where it is free), with max_chars > 0 the
    number of the word's features, and the word's entries, float32 by their bits.
    ngrams: float32 (buckets, width), entries. directions: float32 (columns, dim) where there are more columns than
    dimensions: entries are then the vectors themselves, to be multiplied at the end; else (0, dim).
    One direction with 2 million words and 2 million buckets makes 32 MB.
    """
    columns, dim = directions.shape
    n_words = len(model.words)
    factors = np.asarray(directions, np.float64).T if columns <= dim else None
    ngrams = _multiplied(model.input[n_words:], factors)
    entries = _multiplied(model.input[:n_words], factors)
    late = np.array(directions[columns if columns <= dim else 0 :], np.float32)
    word_ngrams, max_chars = (model.word_ngrams, model.max_chars) if len(ngrams) else (1, 0)
    for seed in range(_SEEDS):
        arrays = {
            "spec": np.array([seed, word_ngrams, model.min_chars, max_chars], np.int64),
            "words": np.zeros((_slots(n_words), ngrams.shape[1] + 1 + (max_chars > 0)), np.uint32),
            "ngrams": ngrams,
            "directions": late,
        }
        if _placed(model.words, entries, Folded(arrays).tables):
            return arrays
    raise UserError(
        "fastText model: its dictionary holds a word twice, or words that were chosen to collide; save the model again"
    )


class Folded:
    """A folded model, from the arrays of `fold`; it keeps views of them, no copies."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        words, ngrams = arrays["words"], arrays["ngrams"]
        seed, word_ngrams, min_chars, max_chars = arrays["spec"].tolist()
        self.directions = arrays["directions"]
        self.tables = Tables(
            tags=words.reshape(-1),
            words=words.reshape(-1).view(np.float32),
            ngrams=ngrams.reshape(-1),
            slots=np.uint64(len(words)),
            stride=np.uint64(words.shape[1]),
            columns=ngrams.shape[1],
            buckets=np.uint64(len(ngrams)),
            inverse=np.uint64(_LARGEST // max(len(ngrams), 1)),
            seed=np.uint64(seed),
            word_ngrams=max(word_ngrams, 1),  # below, fastText finds no runs either
            min_chars=min_chars,
            max_chars=max(max_chars, 0),
        )

    def sums(self, column: Column) -> npt.NDArray[np.float64]:
        """The product of each direction with the mean of each text's features, float64 (n, columns).

        NaN where fastText finds no feature. A row does not depend on the rows beside it, down to the last bit.
        """
        tables = self.tables
        sums = np.zeros((len(column), tables.columns))
        features = np.zeros(len(column), np.int64)
        scratch = Scratch.empty(tables.word_ngrams)
        add_documents(column.data, column.offsets, tables, scratch, sums, features)
        if len(self.directions):
            vectors, sums = sums, np.empty((len(column), len(self.directions)))
            multiply(vectors, self.directions, sums)
        with np.errstate(invalid="ignore"):
            sums /= features[:, None]
        return sums


def _multiplied(vectors: Array, factors: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float32]:
    """vectors @ factors, rounded only at the end; the vectors themselves for no factors.

    vectors: float32, perhaps unaligned and mapped: taken a few rows at a time.
    """
    if factors is None:
        return np.array(vectors, np.float32)
    products = np.empty((len(vectors), factors.shape[1]), np.float32)
    for first in range(0, len(vectors), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        products[rows] = vectors[rows].astype(np.float64) @ factors
    return products


def _slots(words: int) -> int:
    """Three slots for two words, and one more, so that each search ends at a free one."""
    return words + words // 2 + 1


def _placed(words: Column, entries: npt.NDArray[np.float32], tables: Tables) -> bool:
    """Give each word a slot, with its entries; False if two words could not be told apart."""
    slots = np.zeros(len(words), np.int64)
    scratch = Scratch.empty(tables.word_ngrams)
    placed = place_words(words.data, words.offsets, tables, scratch, LONGEST_RUN, slots)
    if placed < len(words) or longest_run(tables.tags[:: int(tables.stride)]) > LONGEST_RUN:
        return False
    records = tables.words.reshape(int(tables.slots), int(tables.stride))
    if tables.max_chars > 0:
        sums, features = entries.astype(np.float64), np.ones(len(words), np.int64)
        add_subwords(words.data, words.offsets, tables, sums, features)
        records.view(np.uint32)[slots, 1] = features
        entries = sums.astype(np.float32)
    records[slots, -tables.columns :] = entries
    return True
