"""The vocabulary: an open-addressing table of words' keys, searched and filled."""

from __future__ import annotations

import numpy as np

from dvsel.fasttext.kernels.layout import HALF, INT_0, ONE, PIECE, ZERO, Array, Int, Scratch, Tables, U
from dvsel.fasttext.kernels.words import hash_words, load_words
from dvsel.kernels.jit import bare_kernel
from dvsel.kernels.simd import prefetch

_NEVER_FREE = np.uint32(1)  # in every tag, since 0 marks a free slot


@bare_kernel
def _home(key: np.uint64, slots: np.uint64) -> np.uint64:
    """Return the slot where the search for a key begins, from the upper half of its bits."""
    return (key >> HALF) * slots >> HALF


@bare_kernel
def _tag(key: np.uint64) -> np.uint32:
    """Return the tag of a key, which its slot holds, from the lower half of its bits."""
    return np.uint32(key) | _NEVER_FREE


@bare_kernel
def _search(tags: Array, slots: np.uint64, stride: np.uint64, key: np.uint64) -> np.uint64:
    """Return the slot of a key, or the free one where it would be."""
    slot = _home(key, slots)
    tag = _tag(key)
    while tags[slot * stride] != tag and tags[slot * stride] != 0:
        slot += ONE
        if slot == slots:
            slot = ZERO
    return slot


@bare_kernel
def find_words(tables: Tables, words: Int, scratch: Scratch) -> Int:
    """Find the words' entries, and of how many features; for unknown words a free slot, whose entries are 0.

    Writes the unknown words to `missed`, in order, and returns how many there are. Nearly all words lie where their
    search begins, so the others are put off.
    """
    tags, slots, stride = tables.tags, tables.slots, tables.stride
    keys, places, weights, missed = scratch.keys, scratch.places, scratch.weights, scratch.missed
    first_entry = stride - U(tables.columns)
    # The table is larger than the caches: all lines are asked for before the first is needed.
    for i in range(words):
        prefetch(tags, np.int64(_home(keys[i], slots) * stride))
    n_missed = INT_0
    for i in range(words):
        at = _home(keys[i], slots) * stride
        hit = np.int64(tags[at] == _tag(keys[i]))
        places[i] = at + first_entry
        weights[i] = hit
        missed[U(n_missed)] = i
        n_missed += 1 - hit
    n_unknown = INT_0
    for k in range(n_missed):
        word = U(missed[k])
        at = _search(tags, slots, stride, keys[word]) * stride
        hit = np.int64(tags[at] != 0)
        places[word] = at + first_entry
        weights[word] = hit
        missed[U(n_unknown)] = word
        n_unknown += 1 - hit
    if tables.max_chars > 0:
        for i in range(words):
            weights[i] = tags[places[i] - ONE]
    return n_unknown


@bare_kernel
def place_words(data: Array, offsets: Array, tables: Tables, scratch: Scratch, farthest: Int, slots: Array) -> Int:
    """Give each of the words data[offsets[i]:offsets[i + 1]] a slot, in order; all slots are free at first.

    Returns how many were placed: all, unless one's tag is found where it would be placed, or its slot is more than
    `farthest` from where its search begins.
    """
    tags, stride = tables.tags, tables.stride
    for first in range(0, len(slots), PIECE):
        words = min(PIECE, len(slots) - first)
        for i in range(words):
            scratch.bounds[2 * i] = offsets[first + i]
            scratch.bounds[2 * i + 1] = offsets[first + i + 1]
        n_open = load_words(data, INT_0, words, INT_0, scratch)
        hash_words(data, words, n_open, tables.seed, scratch)
        for i in range(words):
            home = _home(scratch.keys[i], tables.slots)
            slot = _search(tags, tables.slots, stride, scratch.keys[i])
            way = np.int64(slot) - np.int64(home)
            # A slot holds a tag of 32 bits and no word. So two words of the same tag may not meet in one search; where
            # they would, the caller begins again with another seed.
            if tags[slot * stride] != 0 or (way if way >= 0 else way + np.int64(tables.slots)) > farthest:
                return first + i
            tags[slot * stride] = _tag(scratch.keys[i])
            slots[first + i] = slot
    return len(slots)
