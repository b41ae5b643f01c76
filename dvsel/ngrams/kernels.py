"""The n-gram kernels: tokenise, hash and look up, over a column's bytes. `spec` says what they compute.

A document is taken in pieces of `PIECE` bytes, so that everything between two passes stays in the fastest
cache and a document of any size needs the same scratch. Each piece goes through passes that have hardly a
branch to guess and whose steps do not wait for each other:

1. `_cut`: write the lower-cased text to scratch, and where words start and end. ASCII: 64 bytes at a time.
2. `_hash_words`: one hash a word.
3. `_ngram_buckets`: for each length of n-gram, one bucket for each n-gram that ends in this piece.
4. `_count_entries`, `_sum_entries`: count the buckets, or sum up a table's entries.

What a piece leaves over is carried to the next: the class of the last character, the hash of a word that is
still open (its last 1 to 16 bytes stay in scratch), and the hashes of the last n - 1 words.

numba checks the sign of each index that is not unsigned: hence `U` around indices in hot loops.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.kernels.jit import kernel
from dvsel.kernels.simd import WIDTH, below, copy, copy_lowered, count_ones, equal, load64, trailing_zeros, within
from dvsel.ngrams import spec
from dvsel.ngrams.unicode import PAGE_BITS, PUNCTUATION, SPACE, WORD

PIECE = 4096

# Lower-casing makes a character's UTF-8 longer by half at most, and vectors are written past the end.
_TEXT = spec.STRIDE + PIECE * 3 // 2 + 2 * WIDTH
_WORDS = PIECE + spec.MAX_NGRAMS + WIDTH

_MULTIPLIER = np.uint64(spec.MULTIPLIER)
_LENGTH = np.uint64(spec.LENGTH)
_SEED = np.uint64(spec.SEED)
_TURN = np.uint64(spec.TURN)
_UNTURN = np.uint64(64 - spec.TURN)
_STRIDE = spec.STRIDE

U = np.uint64
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_HALF = np.uint64(32)
_ALL = np.uint64(2**64 - 1)
_HIGH_BITS = np.uint64(0x8080808080808080)
_FIRST_HALF = np.array([(1 << 8 * min(size, 8)) - 1 for size in range(17)], np.uint64)
_SECOND_HALF = np.array([(1 << 8 * max(size - 8, 0)) - 1 for size in range(17)], np.uint64)
_GROUP = 16

Array = npt.NDArray[Any]
Int = Any  # int64 once compiled; mypy cannot type it


@kernel
def needs_python(data: Array, offsets: Array) -> Array:
    """Return the rows with a character that `str.lower` maps by its context, or to two: U+03A3 or U+0130. bool (n,)."""
    found = np.zeros(len(offsets) - 1, np.bool_)
    for row in range(len(found)):
        stop = offsets[row + 1]
        for at in range(offsets[row], stop - 1, WIDTH):
            # Both characters have two bytes: two masks, a byte apart, find them without decoding the text.
            sigma = equal(data, at, np.uint8(0xCE)) & equal(data, at + 1, np.uint8(0xA3))
            dotted = equal(data, at, np.uint8(0xC4)) & equal(data, at + 1, np.uint8(0xB0))
            found_at = trailing_zeros(sigma | dotted)
            if found_at < min(WIDTH, stop - 1 - at):
                found[row] = True
                break
    return found


@kernel
def _decode(data: Array, at: Int, stop: Int) -> tuple[Int, Int]:
    """Return the code point at data[at] and its number of bytes; (-1, 1) for a byte that is not UTF-8."""
    lead = np.int64(data[at])
    if lead < 0x80:
        return lead, 1
    if 0xC2 <= lead < 0xE0 and at + 1 < stop:
        second = np.int64(data[at + 1]) ^ 0x80
        if second < 0x40:
            return (lead & 0x1F) << 6 | second, 2
    elif 0xE0 <= lead < 0xF0 and at + 2 < stop:
        second = np.int64(data[at + 1]) ^ 0x80
        third = np.int64(data[at + 2]) ^ 0x80
        point = (lead & 0x0F) << 12 | second << 6 | third
        if (second | third) < 0x40 and point >= 0x800 and not 0xD800 <= point < 0xE000:
            return point, 3
    elif 0xF0 <= lead < 0xF5 and at + 3 < stop:
        second = np.int64(data[at + 1]) ^ 0x80
        third = np.int64(data[at + 2]) ^ 0x80
        fourth = np.int64(data[at + 3]) ^ 0x80
        point = (lead & 0x07) << 18 | second << 12 | third << 6 | fourth
        if (second | third | fourth) < 0x40 and 0x10000 <= point < 0x110000:
            return point, 4
    return -1, 1


@kernel
def _encode(text: Array, at: Int, point: Int) -> Int:
    """Write a code point as UTF-8 to text[at]; returns its number of bytes."""
    if point < 0x80:
        text[at] = point
        return 1
    if point < 0x800:
        text[at] = 0xC0 | point >> 6
        text[at + 1] = 0x80 | point & 0x3F
        return 2
    if point < 0x10000:
        text[at] = 0xE0 | point >> 12
        text[at + 1] = 0x80 | point >> 6 & 0x3F
        text[at + 2] = 0x80 | point & 0x3F
        return 3
    text[at] = 0xF0 | point >> 18
    text[at + 1] = 0x80 | point >> 12 & 0x3F
    text[at + 2] = 0x80 | point >> 6 & 0x3F
    text[at + 3] = 0x80 | point & 0x3F
    return 4


@kernel
def _cut_ascii(
    data: Array,
    at: Int,
    size: Int,
    whitespace: bool,
    lower: bool,
    text: Array,
    out: Int,
    before: Int,
    starts: Array,
    n_starts: Int,
    ends: Array,
    n_ends: Int,
) -> tuple[Int, Int, Int]:
    """Cut data[at:at + size], 1 to 64 bytes of ASCII. Returns the new `before`, `n_starts` and `n_ends`."""
    space = (
        equal(data, at, np.uint8(0x20))
        | within(data, at, np.uint8(0x09), np.uint8(0x0D))
        | within(data, at, np.uint8(0x1C), np.uint8(0x1F))
    )
    word = ~space
    if not whitespace:
        word = (
            within(data, at, np.uint8(0x61), np.uint8(0x7A))
            | within(data, at, np.uint8(0x41), np.uint8(0x5A))
            | within(data, at, np.uint8(0x30), np.uint8(0x39))
            | equal(data, at, np.uint8(0x5F))
        )
    other = ~(word | space)
    if lower:
        copy_lowered(text, out, data, at)
    else:
        copy(text, out, data, at)
    # Bit i of `after_word` says that the character before i is of a word; the one before the block comes in at bit 0.
    after_word = word << _ONE | U(before == WORD)
    after_other = other << _ONE | U(before == PUNCTUATION)
    valid = _ALL >> U(WIDTH - size)
    start_bits = (word & ~after_word | other & ~after_other) & valid
    end_bits = (after_word & ~word | after_other & ~other) & valid
    new_starts = count_ones(start_bits)
    new_ends = count_ones(end_bits)
    # Whole groups, so that the loop's length is easily guessed; what is written too much is overwritten.
    for group in range(0, max(new_starts, new_ends), _GROUP):
        for i in range(_GROUP):
            starts[U(n_starts + group + i)] = out + trailing_zeros(start_bits)
            ends[U(n_ends + group + i)] = out + trailing_zeros(end_bits)
            start_bits &= start_bits - _ONE
            end_bits &= end_bits - _ONE
    final = U(size - 1)
    before = np.int64(word >> final & _ONE) * WORD + np.int64(other >> final & _ONE) * PUNCTUATION
    return before, n_starts + new_starts, n_ends + new_ends


@kernel
def _cut(
    data: Array,
    at: Int,
    stop: Int,
    whitespace: bool,
    lower: bool,
    pages: Array,
    entries: Array,
    text: Array,
    held: Int,
    before: Int,
    starts: Array,
    ends: Array,
) -> tuple[Int, Int, Int, Int, Int]:
    """Cut the next piece of data[at:stop] into words.

    held: bytes at the front of `text` of the word that is still open. before: the class of the character
    before `at`. The piece's text is written to `text` from `held` on, its words' bounds to `starts` and
    `ends`; an open word has the start 0. Returns the position reached in the data, the end of the text written, the
    class of its last character, and how many starts and ends there are.
    """
    limit = min(stop, at + PIECE)
    out = held
    n_starts = np.int64(0)
    n_ends = np.int64(0)
    if held:
        starts[0] = 0
        n_starts = np.int64(1)
    while at < limit:
        high = ~below(data, at, np.uint8(0x80))
        if high == _ZERO and at + WIDTH <= limit:
            # Apart from the general case, so that the next block does not wait for this one's size.
            before, n_starts, n_ends = _cut_ascii(
                data, at, WIDTH, whitespace, lower, text, out, before, starts, n_starts, ends, n_ends
            )
            at += WIDTH
            out += WIDTH
            continue
        # ASCII goes as far as the next byte beyond it; then single characters, until 8 bytes in a row are ASCII again.
        size = min(trailing_zeros(high), limit - at)
        if size > 0:
            before, n_starts, n_ends = _cut_ascii(
                data, at, size, whitespace, lower, text, out, before, starts, n_starts, ends, n_ends
            )
            at += size
            out += size
        while at < limit:
            if load64(data, at) & _HIGH_BITS == _ZERO:
                break
            point, size = _decode(data, at, stop)
            if point < 0:
                # One byte that is not UTF-8 is one character, as `surrogateescape` has it.
                now = WORD if whitespace else PUNCTUATION
                text[out] = data[at]
                written = 1
            else:
                entry = entries[pages[point >> PAGE_BITS], point & ((1 << PAGE_BITS) - 1)]
                now = entry & 3
                written = _encode(text, out, point + (entry >> 2))
            if now != before:
                if before != SPACE:
                    ends[U(n_ends)] = out
                    n_ends += 1
                if now != SPACE:
                    starts[U(n_starts)] = out
                    n_starts += 1
                before = now
            at += size
            out += written
    return at, out, before, n_starts, n_ends


@kernel
def _absorb(state: np.uint64, value: np.uint64) -> np.uint64:
    state = (state ^ value) * _MULTIPLIER
    return state ^ (state >> _HALF)


@kernel
def _hash_word(text: Array, start: Int, end: Int, state: np.uint64, absorbed: Int) -> np.uint64:
    """Return the hash of a word whose first `absorbed` bytes are in `state` and whose others are text[start:end]."""
    # The number of bytes goes into the hash, else zeros at a word's end would not change it.
    length = U(end - start + absorbed) * _LENGTH
    while end - start > _STRIDE:
        state = _absorb(_absorb(state, load64(text, start)), load64(text, start + 8))
        start += _STRIDE
    first = load64(text, start) & _FIRST_HALF[U(end - start)]
    second = load64(text, start + 8) & _SECOND_HALF[U(end - start)]
    return _absorb(_absorb(state, first), second ^ length)


@kernel
def _hash_words(
    text: Array,
    starts: Array,
    ends: Array,
    words: Int,
    halves: tuple[Array, Array],
    long_words: Array,
    hashes: Array,
    known: Int,
) -> None:
    """Hash the words text[starts[i]:ends[i]] to hashes[known + i]. halves, long_words: scratch.

    First as if all had 16 bytes or less, in two loops, of which the second runs on vectors; then the long.
    """
    firsts, seconds = halves
    n_long = np.int64(0)
    for i in range(words):
        start = np.int64(starts[i])
        size: Int = np.int64(ends[i]) - start
        # Written always, counted only where the word is long: without a branch that is hard to guess.
        long_words[U(n_long)] = i
        n_long += size > _STRIDE
        size = min(size, _STRIDE)
        firsts[i] = load64(text, start) & _FIRST_HALF[U(size)]
        seconds[i] = load64(text, start + 8) & _SECOND_HALF[U(size)] ^ U(size) * _LENGTH
    for i in range(words):
        hashes[U(known + i)] = _absorb(_absorb(_SEED, firsts[i]), seconds[i])
    for i in range(n_long):
        word = long_words[i]
        hashes[U(known + word)] = _hash_word(text, np.int64(starts[word]), np.int64(ends[word]), _SEED, 0)


@kernel
def _carry_open_word(text: Array, start: Int, end: Int, state: np.uint64) -> tuple[Int, np.uint64]:
    """Hash all but the last 1 to 16 bytes of the open word text[start:end], and bring those to the front.

    Returns how many bytes are left, and the state.
    """
    while end - start > _STRIDE:
        state = _absorb(_absorb(state, load64(text, start)), load64(text, start + 8))
        start += _STRIDE
    for i in range(end - start):
        text[i] = text[start + i]
    return end - start, state


@kernel
def _extend(grams: Array, hashes: Array, order: Int, count: Int, longer: Array) -> None:
    """Write the hashes of `count` n-grams of `order` words to `longer`, from `grams`, those of a word less."""
    for i in range(count):
        gram = grams[i]
        # The turn makes the order of words count: `a b` and `b a` are different n-grams. `longer` may be `grams`
        # itself, since each place is read before it is written and never after.
        longer[i] = _absorb((gram << _TURN) | (gram >> _UNTURN), hashes[U(i + order - 1)])


@kernel
def _to_buckets(grams: Array, first: Int, count: Int, scale: np.uint64, buckets: Array) -> None:
    for i in range(count):
        # The upper 32 bits times the number of buckets, over 2^32: a remainder without a division.
        buckets[i] = ((grams[U(first + i)] >> _HALF) * scale) >> _HALF


@kernel
def _ngram_buckets(
    order: Int, hashes: Array, grams: Array, known: Int, words: Int, scale: np.uint64, buckets: Array
) -> Int:
    """Write the buckets of the n-grams of `order` words that end in hashes[known:words]; return how many.

    grams: the hashes of the n-grams one word shorter, by their first word; left with those of this order.
    """
    count = max(words - order + 1, 0)
    old = max(known - order + 1, 0)
    if order > 1:
        _extend(hashes if order == 2 else grams, hashes, order, count, grams)
    _to_buckets(hashes if order == 1 else grams, old, count - old, scale, buckets)
    return count - old


@kernel
def _sum_entries(table: Array, buckets: Array, count: Int) -> float:
    """Return the sum of table[buckets[:count]], in four sums that do not wait for each other."""
    # In float64, and in an order that the row alone decides: its score is the same bits in any batch.
    sum0 = sum1 = sum2 = sum3 = 0.0
    whole = count & ~3
    for i in range(0, whole, 4):
        sum0 += table[buckets[i]]
        sum1 += table[buckets[i + 1]]
        sum2 += table[buckets[i + 2]]
        sum3 += table[buckets[i + 3]]
    for i in range(whole, count):
        sum0 += table[buckets[i]]
    return (sum0 + sum1) + (sum2 + sum3)


@kernel
def _count_entries(counts: Array, buckets: Array, count: Int) -> None:
    for i in range(count):
        counts[buckets[i]] += 1


@kernel
def run(
    data: Array,
    offsets: Array,
    skip: Array,
    whitespace: bool,
    lower: bool,
    pages: Array,
    entries: Array,
    ngrams: Int,
    buckets: Int,
    counts: Array,
    table: Array,
    sums: Array,
    words: Array,
) -> None:
    """Take each row through all passes, except those of `skip`.

    counts: int64 (buckets,), counted up for each n-gram, or (0,) for not at all.
    table: float32 (columns, buckets), or (0, buckets). sums: float64 (n, columns), added to.
    words: int64 (n,), set to each row's number of words.
    """
    text = np.zeros(_TEXT, np.uint8)
    starts = np.empty(_WORDS, np.int32)
    ends = np.empty(_WORDS, np.int32)
    halves = (np.empty(_WORDS, np.uint64), np.empty(_WORDS, np.uint64))
    long_words = np.empty(_WORDS, np.int32)
    hashes = np.empty(_WORDS, np.uint64)
    grams = np.empty(_WORDS, np.uint64)
    found = np.empty(_WORDS, np.uint32)
    for row in range(len(skip)):
        if skip[row]:
            continue
        at, stop = offsets[row], offsets[row + 1]
        before = np.int64(SPACE)
        held = absorbed = known = np.int64(0)
        state = _SEED
        while at < stop:
            at, end, before, n_starts, n_ends = _cut(
                data, at, stop, whitespace, lower, pages, entries, text, held, before, starts, ends
            )
            if at == stop and n_starts > n_ends:
                ends[n_ends] = end
                n_ends += 1
            _hash_words(text, starts, ends, n_ends, halves, long_words, hashes, known)
            if n_ends > 0 and absorbed > 0:
                hashes[known] = _hash_word(text, 0, np.int64(ends[0]), state, absorbed)
            total = known + n_ends
            for order in range(1, ngrams + 1):
                n_found = _ngram_buckets(order, hashes, grams, known, total, U(buckets), found)
                if len(counts) > 0:
                    _count_entries(counts, found, n_found)
                for column in range(len(table)):
                    sums[row, column] += _sum_entries(table[column], found, n_found)
            words[row] += n_ends
            if n_ends > 0:
                state = _SEED
                absorbed = np.int64(0)
            held = np.int64(0)
            if n_starts > n_ends:
                start = np.int64(starts[n_ends])
                held, state = _carry_open_word(text, start, end, state)
                absorbed += end - start - held
            # The last n - 1 words are carried over: n-grams of the next piece begin with them.
            known = min(total, ngrams - 1)
            for i in range(known):
                hashes[i] = hashes[total - known + i]
