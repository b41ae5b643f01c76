"""Words: where they lie in a text, fastText's hash of each, and the key that the vocabulary is searched by."""

from __future__ import annotations

from typing import Any

import numpy as np

from dvsel.fasttext.kernels.layout import HALF, INT_0, ONE, PIECE, TWO, Array, Int, Scratch, U
from dvsel.kernels.jit import bare_kernel
from dvsel.kernels.simd import WIDTH, count_ones, equal, load64, trailing_zeros, within

_GROUP = 8
_LANES = 16
_CHUNK = 8
_FEW = 8  # words, for which vectors do not pay

_ALL = np.uint64(2**64 - 1)
_BITS_A_BYTE = np.uint64(8)
_FIRST_BYTES = np.array([(1 << 8 * size) - 1 for size in range(_CHUNK + 1)], np.uint64)

FNV_START = np.uint32(2166136261)
_FNV_PRIME = np.uint32(16777619)
_KEY_PRIME = np.uint64(0x9E3779B97F4A7C15)

_END = np.uint64(int.from_bytes(b"</s>", "little"))
_END_SIZE = 4
_LABEL = np.uint64(int.from_bytes(b"__label_", "little"))
_NEWLINE, _SPACE, _TAB, _RETURN, _NUL, _UNDERSCORE = (np.uint8(byte) for byte in b"\n \t\r\0_")


@bare_kernel
def find_bounds(data: Array, at: Int, stop: Int, bounds: Array, found: Int) -> tuple[Int, Int, Int]:
    """Write where words start and end in data[at:stop] to `bounds`, which has `found` already: an odd number where a
    word is open. Goes on until a newline, or until the piece is full.

    Returns the position reached, the new `stop` and the new `found`.
    """
    inside = U(found & 1)
    while at < stop and found < 2 * PIECE:
        newline = equal(data, at, _NEWLINE)
        if newline:
            stop = min(stop, at + trailing_zeros(newline))
        word = ~(equal(data, at, _SPACE) | within(data, at, _TAB, _RETURN) | equal(data, at, _NUL))
        if stop - at < WIDTH:
            word &= ~(_ALL << U(stop - at))
        # A bit is set where a word begins and where one has ended: bounds come out alternately.
        edges = word ^ (word << ONE | inside)
        inside = word >> U(WIDTH - 1)
        old = found
        found += count_ones(edges)
        # Whole groups, so that the loop's length is easily guessed; what is written too much is overwritten.
        for group in range(old, found, _GROUP):
            for i in range(_GROUP):
                bounds[U(group + i)] = at + trailing_zeros(edges)
                edges &= edges - ONE
        at += WIDTH
    if at >= stop and found & 1:
        bounds[U(found)] = stop
        found += 1
    return at, stop, found


@bare_kernel
def load_words(data: Array, first: Int, last: Int, n_open: Int, scratch: Scratch) -> Int:
    """Load the first chunks of these words, and append those that are longer to `open`; returns how many it has."""
    bounds, open = scratch.bounds, scratch.open
    for i in range(first, last):
        start = bounds[U(2 * i)]
        size = bounds[U(2 * i + 1)] - start
        taken = U(min(size, _CHUNK))
        scratch.chunks[U(i)] = load64(data, start) & _FIRST_BYTES[taken]
        scratch.sizes[U(i)] = taken
        open[U(n_open)] = i
        n_open += size > _CHUNK
    return n_open


@bare_kernel
def end_document(first: Int, last: Int, n_open: Int, finished: bool, scratch: Scratch) -> tuple[Int, Int, bool]:
    """End a document of these words with `</s>`: at its first one, else after its text, if that is finished.

    Returns the new `last` and `n_open`, and whether it has ended.
    """
    end = first
    while end < last and scratch.chunks[U(end)] != _END:
        end += 1
    if end == last and not finished:
        return last, n_open, False
    # With empty bounds, as it has no character n-grams.
    scratch.bounds[U(2 * end)] = 0
    scratch.bounds[U(2 * end + 1)] = 0
    scratch.chunks[U(end)] = _END
    scratch.sizes[U(end)] = _END_SIZE
    while n_open > 0 and scratch.open[U(n_open - 1)] > end:
        n_open -= 1
    return end + 1, n_open, True


@bare_kernel
def is_end(data: Array, start: Int, end: Int) -> Any:
    """Return whether data[start:end] is `</s>`."""
    return end - start == _END_SIZE and load64(data, start) & _FIRST_BYTES[_END_SIZE] == _END


@bare_kernel
def is_label(data: Array, start: Int, end: Int) -> Any:
    """Return whether data[start:end] begins with `__label__`."""
    return end - start > _CHUNK and load64(data, start) == _LABEL and data[start + _CHUNK] == _UNDERSCORE


@bare_kernel
def fnv_step(state: np.uint32, byte: Any) -> np.uint32:
    """Take a byte into a hash as fastText does, as signed: those from 0x80 on fill the upper bits with ones."""
    return np.uint32((state ^ np.uint32(np.int32(np.int8(byte)))) * _FNV_PRIME)


@bare_kernel
def _absorb(state: np.uint64, value: np.uint64) -> np.uint64:
    state = (state ^ value) * _KEY_PRIME
    return state ^ (state >> HALF)


@bare_kernel
def _whole_vectors(words: Int) -> Int:
    return (words + _LANES - 1) & -_LANES


@bare_kernel
def _take_chunks(words: Int, chunks: Array, sizes: Array, fnv: Array, keys: Array) -> None:
    """Take each word's chunk into its hash and its key."""
    for i in range(_whole_vectors(words)):
        state = fnv[i]
        # All 8 bytes for all words, and a choice in place of a branch: so the loop over words runs on vectors.
        for at in range(_CHUNK):
            next = fnv_step(state, chunks[i] >> (U(at) * _BITS_A_BYTE))
            state = next if np.uint32(at) < sizes[i] else state
        fnv[i] = state
    for i in range(_whole_vectors(words)):
        keys[i] = _absorb(keys[i], chunks[i])


@bare_kernel
def hash_words(data: Array, words: Int, n_open: Int, seed: np.uint64, scratch: Scratch) -> None:
    """Make the hash and the key of each word, after `load_words`."""
    fnv, keys = scratch.fnv, scratch.keys
    for i in range(_whole_vectors(words)):
        fnv[i] = FNV_START
        keys[i] = seed
    _take_chunks(words, scratch.chunks, scratch.sizes, fnv, keys)
    done = np.int64(_CHUNK)
    while n_open > _FEW:
        n_open = _hash_open_words(data, n_open, done, scratch)
        done += _CHUNK
    for k in range(n_open):
        _hash_rest(data, U(scratch.open[k]), done, scratch)
    for i in range(_whole_vectors(words)):
        keys[i] = _absorb(keys[i], U(fnv[i]))


@bare_kernel
def _hash_open_words(data: Array, n_open: Int, done: Int, scratch: Scratch) -> Int:
    """Take the chunk after the first `done` bytes of each open word; returns how many stay open."""
    bounds, open = scratch.bounds, scratch.open
    for k in range(n_open):
        word = U(open[k])
        at = bounds[TWO * word] + done
        size = U(min(bounds[TWO * word + ONE] - at, _CHUNK))
        scratch.open_chunks[k] = load64(data, at) & _FIRST_BYTES[size]
        scratch.open_sizes[k] = size
        scratch.open_fnv[k] = scratch.fnv[word]
        scratch.open_keys[k] = scratch.keys[word]
    _take_chunks(n_open, scratch.open_chunks, scratch.open_sizes, scratch.open_fnv, scratch.open_keys)
    kept = INT_0
    for k in range(n_open):
        word = U(open[k])
        scratch.fnv[word] = scratch.open_fnv[k]
        scratch.keys[word] = scratch.open_keys[k]
        open[U(kept)] = word
        kept += bounds[TWO * word + ONE] - bounds[TWO * word] > done + _CHUNK
    return kept


@bare_kernel
def _hash_rest(data: Array, word: np.uint64, done: Int, scratch: Scratch) -> None:
    """Take all bytes of a word after the first `done`."""
    at = scratch.bounds[TWO * word] + done
    end = scratch.bounds[TWO * word + ONE]
    state, key = scratch.fnv[word], scratch.keys[word]
    while at < end:
        size = min(end - at, _CHUNK)
        chunk = load64(data, at) & _FIRST_BYTES[U(size)]
        key = _absorb(key, chunk)
        for i in range(size):
            state = fnv_step(state, chunk >> (U(i) * _BITS_A_BYTE))
        at += size
    scratch.fnv[word], scratch.keys[word] = state, key
