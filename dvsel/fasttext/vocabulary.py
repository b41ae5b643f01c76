"""Texts as fastText sees them when it learns: words, their vocabulary, and the features of each document.

As `Dictionary` of fastText 0.9.3 reads a line (src/dictionary.cc): words are what lies between the bytes space, tab,
newline, vertical tab, form feed, carriage return and NUL; `</s>` ends each document and is a word itself. The
vocabulary holds the words that occur often enough, the commonest first. A document's features are the ids of its
words, hashed runs of characters of each word, and hashed runs of words; a word that is too rare has no id, but its
runs count. Two things are left out that only spoil what is learned: words that begin with `__label__`, which
vanish when a document is scored, and what follows a literal `</s>`, where scoring stops.

Words of the same count are ordered by a hash of their bytes (fastText leaves their order open), so the vocabulary
does not depend on the order of the documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import PAD, Column
from dvsel.documents.gather import gathered
from dvsel.documents.hashing import hash_rows
from dvsel.fasttext.kernels.ngrams import NGRAM_PRIME
from dvsel.fasttext.kernels.words import FNV_START, fnv_step
from dvsel.fasttext.model import PREFIX
from dvsel.kernels.jit import kernel
from dvsel.kernels.simd import load64

END = b"</s>"

_END = np.frombuffer(END + bytes(PAD), np.uint8).copy()
_END_SIZE = len(END)
_PREFIX = np.frombuffer(PREFIX.encode() + bytes(PAD), np.uint8).copy()
_PREFIX_SIZE = len(PREFIX)
_SPACES = np.zeros(256, np.bool_)
_SPACES[list(b" \t\n\v\f\r\0")] = True

_ROOM = 1 << 12  # words to begin with

_HALF = np.uint64(32)
_LOW_HALF = np.uint64(2**32 - 1)

Array = npt.NDArray[Any]
Int = Any  # int64 once compiled; mypy cannot type it
Hash = Any  # uint32 once compiled


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents as runs of word numbers; number 0 is `</s>`, which ends each, the others are by first occurrence.

    tokens: int32, of all documents; ends: int64 (documents + 1,), document i is tokens[ends[i]:ends[i + 1]].
    words: by number. hashes: int32 (words,), fastText's hash of each. counts: int64 (words,), its occurrences.
    """

    tokens: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]
    words: Column
    hashes: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FeatureNumbers:
    """Feature ids of documents: those of document i are ids[ends[i]:ends[i + 1]].

    ids: int32; below the number of words in the vocabulary, a word, from there on, a bucket. ends: int64.
    """

    ids: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]


def word_counts(column: Column) -> npt.NDArray[np.int64]:
    """Count each row's words, without `</s>`, int64 (n,)."""
    counts = np.zeros(len(column), np.int64)
    _count_words(column.data, column.offsets, _SPACES, counts)
    return counts


def read(column: Column, rows: npt.NDArray[np.int64]) -> Corpus:
    """Take these rows of a column, at least one, apart into words."""
    tokens = np.empty(int(word_counts(column)[rows].sum()) + len(rows), np.int32)
    ends = np.zeros(len(rows) + 1, np.int64)
    slots = np.zeros(2 * _ROOM, np.uint64)
    places, hashes, counts = np.zeros((_ROOM, 2), np.int64), np.zeros(_ROOM, np.uint32), np.zeros(_ROOM, np.int64)
    hashes[0] = _hash(_END, 0, _END_SIZE, FNV_START)
    reached = np.array([0, column.offsets[rows[0]], 1, 0])
    # The kernel stops where there is no room for a new word: only Python can make the arrays longer.
    while reached[0] < len(rows):
        if reached[2] == len(counts):
            slots, places, hashes, counts = _spread(slots), _longer(places), _longer(hashes), _longer(counts)
        state = (slots, places, hashes, counts, reached)
        _read(column.data, column.offsets, rows, (_SPACES, _END, _PREFIX), *state, tokens, ends)
    found = slice(reached[2])
    words = Column.join([Column.of([END]), gathered(column.data, places[found][1:, 0], places[found][1:, 1])])
    return Corpus(tokens[: ends[-1]], ends, words, hashes[found].view(np.int32), counts[found])


def vocabulary(corpus: Corpus, min_count: int) -> tuple[Column, npt.NDArray[np.int32]]:
    """Choose the words that occur `min_count` times, by count; and for each word of the corpus its id, or -1.

    Returns the words, row i that with id i, and int32 (words of the corpus,).
    """
    order = np.lexsort((hash_rows(corpus.words), -corpus.counts))
    order = order[: np.searchsorted(-corpus.counts[order], -min_count, side="right")]
    ids = np.full(len(corpus.counts), -1, np.int32)
    ids[order] = np.arange(len(order), dtype=np.int32)
    offsets = corpus.words.offsets
    return gathered(corpus.words.data, offsets[order], offsets[order + 1]), ids


def feature_numbers(
    corpus: Corpus, ids: npt.NDArray[np.int32], word_ngrams: int, chars: tuple[int, int], buckets: int
) -> FeatureNumbers:
    """Number the features of each document.

    ids: of `vocabulary`. chars: shortest and longest run of characters; (0, 0) for none. buckets: how many features
    runs are hashed into.
    """
    words = int(ids.max(initial=-1)) + 1
    runs, run_ends = _character_runs(corpus, chars, buckets, words)
    ends = np.zeros(len(corpus.ends), np.int64)
    _count_features(corpus.tokens, corpus.ends, ids, run_ends, word_ngrams, ends)
    found = np.empty(ends[-1], np.int32)
    _fill_features(
        corpus.tokens, corpus.ends, ids, corpus.hashes, runs, run_ends, word_ngrams, buckets, words, ends, found
    )
    return FeatureNumbers(found, ends)


def _longer(array: Array) -> Array:
    return np.concatenate([array, np.zeros_like(array)])


def _character_runs(corpus: Corpus, chars: tuple[int, int], buckets: int, words: int) -> tuple[Array, Array]:
    """Return feature ids of the runs of characters of each word of the corpus, end to end, and where they end."""
    ends = np.zeros(len(corpus.counts) + 1, np.int64)
    none = np.empty(0, np.int32)
    if not chars[1]:
        return none, ends
    place = (corpus.words.data, corpus.words.offsets, *chars, buckets, words)
    _hash_characters(*place, ends, none)
    runs = np.empty(np.cumsum(ends, out=ends)[-1], np.int32)
    _hash_characters(*place, ends, runs)
    return runs, ends


@kernel
def _count_words(data: Array, offsets: Array, spaces: Array, counts: Array) -> None:
    for row in range(len(counts)):
        space = True
        words = np.int64(0)
        for at in range(offsets[row], offsets[row + 1]):
            now = spaces[data[at]]
            words += space & ~now  # without a branch, which would be guessed wrong at every word
            space = now
        counts[row] = words


@kernel
def _same(data: Array, begin: Int, other: Array, other_begin: Int, size: Int) -> bool:
    """Return whether data[begin:begin + size] and other[other_begin:...] are the same; both have `PAD` bytes more."""
    while size >= 8:
        if load64(data, begin) != load64(other, other_begin):
            return False
        begin, other_begin, size = begin + 8, other_begin + 8, size - 8
    # The last load reads up to 8 bytes beyond the word, which the mask leaves out: hence the spare bytes.
    difference = load64(data, begin) ^ load64(other, other_begin)
    return bool(difference & ((np.uint64(1) << np.uint64(8 * size)) - np.uint64(1)) == np.uint64(0))


@kernel
def _find(data: Array, begin: Int, size: Int, hash: Hash, slots: Array, places: Array) -> Int:
    """Return the slot of a word, or the empty one where it belongs.

    slots: uint64, a word's hash and number + 1 (0: empty). places: int64 (words, 2), where words begin and end.
    """
    mask = np.uint64(len(slots) - 1)
    slot = np.uint64(hash) & mask
    while slots[slot] != 0:
        # The hash stands in the slot, so that only a word that is likely the same is looked up in the text.
        if slots[slot] >> _HALF == np.uint64(hash):
            word = np.int64(slots[slot] & _LOW_HALF) - 1
            first = places[word, 0]
            if places[word, 1] - first == size and _same(data, begin, data, first, size):
                break
        slot = (slot + np.uint64(1)) & mask
    return slot


@kernel
def _spread(slots: Array) -> Array:
    """Return the slots in a table of twice the size."""
    spread = np.zeros(2 * len(slots), np.uint64)
    mask = np.uint64(len(spread) - 1)
    for entry in slots:
        if entry != 0:
            slot = (entry >> _HALF) & mask
            while spread[slot] != 0:
                slot = (slot + np.uint64(1)) & mask
            spread[slot] = entry
    return spread


@kernel
def _hash(data: Array, begin: Int, end: Int, hash: Hash) -> Hash:
    """Return fastText's hash of data[begin:end], begun with `hash`."""
    for at in range(begin, end):
        hash = fnv_step(hash, data[at])
    return hash


@kernel
def _next_word(data: Array, at: Int, stop: Int, spaces: Array) -> tuple[Int, Int]:
    """Return where the next word from `at` on begins and ends; `stop` twice after the last."""
    while at < stop and spaces[data[at]]:
        at += 1
    begin = at
    while at < stop and not spaces[data[at]]:
        at += 1
    return begin, at


@kernel
def _read(
    data: Array,
    offsets: Array,
    rows: Array,
    marks: tuple[Array, Array, Array],
    slots: Array,
    places: Array,
    hashes: Array,
    counts: Array,
    reached: Array,
    tokens: Array,
    ends: Array,
) -> None:
    """Read until all is read, or there is no room for a new word.

    reached: int64 (4,), where to begin and then where it stopped: at which of `rows`, at which byte, and how many
    words and tokens there are.
    """
    spaces, end_word, prefix = marks
    row, at, words, filled = reached
    while row < len(rows):
        stop = offsets[rows[row] + 1]
        begin, end = _next_word(data, at, stop, spaces)
        while begin < end:
            size = end - begin
            if size == _END_SIZE and _same(data, begin, end_word, 0, size):
                break
            if size < _PREFIX_SIZE or not _same(data, begin, prefix, 0, _PREFIX_SIZE):
                hash = _hash(data, begin, end, FNV_START)
                slot = _find(data, begin, size, hash, slots, places)
                if slots[slot] == 0:
                    if words == len(counts):
                        reached[0], reached[1], reached[2], reached[3] = row, begin, words, filled
                        return
                    places[words, 0], places[words, 1], hashes[words] = begin, end, hash
                    words += 1
                    slots[slot] = np.uint64(hash) << _HALF | np.uint64(words)
                word = np.int64(slots[slot] & _LOW_HALF) - 1
                counts[word] += 1
                tokens[filled] = word
                filled += 1
            begin, end = _next_word(data, end, stop, spaces)
        counts[0] += 1
        tokens[filled] = 0
        filled += 1
        row += 1
        ends[row] = filled
        if row < len(rows):
            at = offsets[rows[row]]
    reached[0], reached[1], reached[2], reached[3] = row, at, words, filled


@kernel
def _hash_characters(
    data: Array,
    offsets: Array,
    shortest: Int,
    longest: Int,
    buckets: Int,
    words: Int,
    ends: Array,
    runs: Array,
) -> None:
    """Write the runs of each word, between `<` and `>`, to `runs`; where that is empty, their number to `ends`."""
    filled = np.int64(0)
    marked = np.empty(2 + np.diff(offsets).max(), np.uint8)
    for word in range(1, len(offsets) - 1):
        size = offsets[word + 1] - offsets[word] + 2
        marked[0], marked[size - 1] = ord("<"), ord(">")
        marked[1 : size - 1] = data[offsets[word] : offsets[word + 1]]
        before = filled
        for begin in range(size):
            # A run begins at a character, not inside one.
            if marked[begin] & 0xC0 == 0x80:
                continue
            at = begin
            hash = FNV_START
            for length in range(1, longest + 1):
                if at == size:
                    break
                first = at
                at += 1
                while at < size and marked[at] & 0xC0 == 0x80:
                    at += 1
                hash = _hash(marked, first, at, hash)
                # As fastText, which leaves out `<` and `>` by themselves.
                if length >= shortest and not (length == 1 and (begin == 0 or at == size)):
                    if len(runs) > 0:
                        runs[filled] = words + np.int64(hash) % buckets
                    filled += 1
        if len(runs) == 0:
            ends[word + 1] = filled - before


@kernel
def _count_features(
    tokens: Array, token_ends: Array, ids: Array, run_ends: Array, word_ngrams: Int, ends: Array
) -> None:
    for row in range(len(ends) - 1):
        size = token_ends[row + 1] - token_ends[row]
        found = np.int64(0)
        for at in range(token_ends[row], token_ends[row + 1]):
            word = tokens[at]
            found += (ids[word] >= 0) + run_ends[word + 1] - run_ends[word]
        for shorter in range(1, word_ngrams):
            found += max(size - shorter, 0)
        ends[row + 1] = ends[row] + found


@kernel
def _fill_features(
    tokens: Array,
    token_ends: Array,
    ids: Array,
    hashes: Array,
    runs: Array,
    run_ends: Array,
    word_ngrams: Int,
    buckets: Int,
    words: Int,
    ends: Array,
    found: Array,
) -> None:
    for row in range(len(ends) - 1):
        out = ends[row]
        begin, stop = token_ends[row], token_ends[row + 1]
        for at in range(begin, stop):
            word = tokens[at]
            if ids[word] >= 0:
                found[out] = ids[word]
                out += 1
            for run in range(run_ends[word], run_ends[word + 1]):
                found[out] = runs[run]
                out += 1
        for first in range(begin, stop):
            # int32 widened with its sign, as fastText does it.
            hash = np.uint64(np.int64(hashes[tokens[first]]))
            for at in range(first + 1, min(first + word_ngrams, stop)):
                hash = hash * NGRAM_PRIME + np.uint64(np.int64(hashes[tokens[at]]))
                found[out] = words + np.int64(hash % np.uint64(buckets))
                out += 1
