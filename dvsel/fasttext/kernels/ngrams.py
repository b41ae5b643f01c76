"""N-grams: runs of words and runs of a word's characters, hashed into buckets."""

from __future__ import annotations

import numpy as np

from dvsel.fasttext.kernels.layout import INT_0, Array, Int, Scratch, Tables, U
from dvsel.fasttext.kernels.words import FNV_START, fnv_step, is_end
from dvsel.kernels.jit import bare_kernel
from dvsel.kernels.simd import multiply_high

NGRAM_PRIME = np.uint64(116049371)
_LESS, _GREATER = (np.uint8(byte) for byte in b"<>")


@bare_kernel
def remainder(value: np.uint64, divisor: np.uint64, inverse: np.uint64) -> np.uint64:
    """Return value % divisor, where inverse = (2**64 - 1) // divisor: so the quotient is right or one too small."""
    rest = value - multiply_high(value, inverse) * divisor
    # Unsigned: where `rest` is below the divisor, the difference wraps round to a large number.
    return min(rest, rest - divisor)


@bare_kernel
def find_ngrams(tables: Tables, order: Int, words: Int, scratch: Scratch) -> None:
    """Find the entries of the n-grams of `order` words that begin at each of `words` hashes.

    Some cross from one document to the next, and are not taken. `grams` has the hashes of n-grams one word shorter,
    and is left with those of this order.
    """
    hashes, grams, places = scratch.hashes, scratch.grams, scratch.places
    count = max(words - order + 1, 0)
    shorter = hashes if order == 2 else grams
    for i in range(count):
        grams[i] = shorter[i] * NGRAM_PRIME + hashes[U(i + order - 1)]
    for i in range(count):
        places[i] = remainder(grams[i], tables.buckets, tables.inverse) * U(tables.columns)


@bare_kernel
def _byte_of(data: Array, start: Int, size: Int, at: Int) -> np.uint8:
    """Return byte `at` of `<word>`, where the word has `size` bytes."""
    if at == 0:
        return _LESS
    return data[start + at - 1] if at <= size else _GREATER


@bare_kernel
def add_char_ngrams(tables: Tables, data: Array, start: Int, end: Int, sums: Array) -> Int:
    """Add the entries of the character n-grams of `<word>`, where the word is data[start:end]; returns how many.

    A character begins at each byte that does not continue one. `<` and `>` alone are not n-grams.
    """
    size = end - start
    count = INT_0
    for first in range(size + 2):
        if _byte_of(data, start, size, first) & 0xC0 == 0x80:
            continue
        state = FNV_START
        at = first
        chars = INT_0
        while at < size + 2 and chars < tables.max_chars:
            state = fnv_step(state, _byte_of(data, start, size, at))
            at += 1
            while at < size + 2 and _byte_of(data, start, size, at) & 0xC0 == 0x80:
                state = fnv_step(state, _byte_of(data, start, size, at))
                at += 1
            chars += 1
            if chars >= tables.min_chars and not (chars == 1 and (first == 0 or at == size + 2)):
                place = remainder(U(state), tables.buckets, tables.inverse) * U(tables.columns)
                for column in range(tables.columns):
                    sums[column] += tables.ngrams[place + U(column)]
                count += 1
    return count


@bare_kernel
def add_subwords(data: Array, offsets: Array, tables: Tables, sums: Array, features: Array) -> None:
    """Add to each word's sums, float64 (words, columns), the entries of its character n-grams, and to its features,
    int64 (words,), their number. `</s>` has none."""
    for word in range(len(features)):
        start, end = offsets[word], offsets[word + 1]
        if not is_end(data, start, end):
            features[word] += add_char_ngrams(tables, data, start, end, sums[word])
