"""Hashes of documents: the names by which dvsel recognises a text, and the seeded noise drawn from them.

Everything here depends on the bytes, the seed and nothing else, so that noise and ties come out the same
whatever the sharding, the order, the compression or the number of workers. Rows are hashed by XXH64, so that
any other tool can reproduce the hashes that score files hold.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import Bytes, Column, Offsets
from dvsel.kernels.jit import kernel
from dvsel.kernels.simd import load64

Hashes = npt.NDArray[np.uint64]

_PRIME_1 = np.uint64(0x9E3779B185EBCA87)
_PRIME_2 = np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME_3 = np.uint64(0x165667B19E3779F9)
_PRIME_4 = np.uint64(0x85EBCA77C2B2AE63)
_PRIME_5 = np.uint64(0x27D4EB2F165667C5)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SEED_MASK = 2**64 - 1


def hash_rows(column: Column, seed: int = 0) -> Hashes:
    """Return XXH64 of each row's bytes, uint64 (n,)."""
    return hash_spans(column.data, column.offsets[:-1], column.offsets[1:], seed)


def hash_spans(data: Bytes, starts: Offsets, ends: Offsets, seed: int = 0) -> Hashes:
    """Return XXH64 of data[starts[i]:ends[i]], uint64 (n,). data: PAD bytes or more beyond the last end."""
    hashes = np.empty(len(starts), np.uint64)
    _hash_spans(data, starts, ends, np.uint64(seed & _SEED_MASK), hashes)
    return hashes


def combine(first: Hashes, second: Hashes) -> Hashes:
    """Hash pairs of hashes, uint64 (n,): XXH64 of each pair's 16 bytes, little-endian; their order matters."""
    hashes = np.empty(len(first), np.uint64)
    _combine(first, second, hashes)
    return hashes


def mix(hashes: Hashes, seed: int) -> Hashes:
    """Hash each hash once more, uint64 (n,), otherwise for each seed."""
    mixed = np.empty(len(hashes), np.uint64)
    _mix(hashes, np.uint64(seed & _SEED_MASK), mixed)
    return mixed


def uniform(hashes: Hashes, seed: int) -> npt.NDArray[np.float64]:
    """Draw a number in the open interval (0, 1) for each hash, float64 (n,); another seed gives other ones."""
    numbers = np.empty(len(hashes), np.float64)
    _uniform(hashes, np.uint64(seed & _SEED_MASK), numbers)
    return numbers


@kernel
def _rotate(value: np.uint64, left: np.uint64) -> np.uint64:
    return (value << left) | (value >> (np.uint64(64) - left))


@kernel
def _round(lane: np.uint64, value: np.uint64) -> np.uint64:
    return _rotate(lane + value * _PRIME_2, np.uint64(31)) * _PRIME_1


@kernel
def _merge(state: np.uint64, lane: np.uint64) -> np.uint64:
    return (state ^ _round(np.uint64(0), lane)) * _PRIME_1 + _PRIME_4


@kernel
def _add_word(state: np.uint64, word: np.uint64) -> np.uint64:
    return _rotate(state ^ _round(np.uint64(0), word), np.uint64(27)) * _PRIME_1 + _PRIME_4


@kernel
def _avalanche(state: np.uint64) -> np.uint64:
    state = (state ^ (state >> np.uint64(33))) * _PRIME_2
    state = (state ^ (state >> np.uint64(29))) * _PRIME_3
    return state ^ (state >> np.uint64(32))


@kernel
def _stripes(data: Bytes, at: int, stop: int, seed: np.uint64) -> np.uint64:
    """Return the state after the whole 32-byte stripes of data[at:stop]."""
    # Four lanes that do not wait for each other: XXH64 is built so that a core works on all at once.
    lane_1 = seed + _PRIME_1 + _PRIME_2
    lane_2 = seed + _PRIME_2
    lane_3 = seed
    lane_4 = seed - _PRIME_1
    while at + 32 <= stop:
        lane_1 = _round(lane_1, load64(data, at))
        lane_2 = _round(lane_2, load64(data, at + 8))
        lane_3 = _round(lane_3, load64(data, at + 16))
        lane_4 = _round(lane_4, load64(data, at + 24))
        at += 32
    state = _rotate(lane_1, np.uint64(1)) + _rotate(lane_2, np.uint64(7))
    state += _rotate(lane_3, np.uint64(12)) + _rotate(lane_4, np.uint64(18))
    return _merge(_merge(_merge(_merge(state, lane_1), lane_2), lane_3), lane_4)


@kernel
def _tail(data: Bytes, at: int, stop: int, state: np.uint64) -> np.uint64:
    """Add the last bytes, fewer than 32, to the state."""
    while at + 8 <= stop:
        state = _add_word(state, load64(data, at))
        at += 8
    if at + 4 <= stop:
        word = load64(data, at) & np.uint64(0xFFFFFFFF)
        state = _rotate(state ^ (word * _PRIME_1), np.uint64(23)) * _PRIME_2 + _PRIME_3
        at += 4
    # The specification's order: words of 8 bytes, then one of 4, then single bytes.
    while at < stop:
        state = _rotate(state ^ (np.uint64(data[at]) * _PRIME_5), np.uint64(11)) * _PRIME_1
        at += 1
    return state


@kernel
def _hash_spans(data: Bytes, starts: Offsets, ends: Offsets, seed: np.uint64, hashes: Hashes) -> None:
    for row in range(len(hashes)):
        begin, stop = starts[row], ends[row]
        size = stop - begin
        state = _stripes(data, begin, stop, seed) if size >= 32 else seed + _PRIME_5
        at = stop - (size & 31)
        hashes[row] = _avalanche(_tail(data, at, stop, state + np.uint64(size)))


@kernel
def _combine(first: Hashes, second: Hashes, hashes: Hashes) -> None:
    for row in range(len(hashes)):
        # XXH64 of exactly 16 bytes, without the stripes and the tail that it has none of.
        state = _add_word(_PRIME_5 + np.uint64(16), first[row])
        hashes[row] = _avalanche(_add_word(state, second[row]))


@kernel
def _splitmix(value: np.uint64) -> np.uint64:
    value += _GOLDEN
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@kernel
def _mix(hashes: Hashes, seed: np.uint64, mixed: Hashes) -> None:
    key = _splitmix(~seed)  # the complement, so that ties and the noise of one seed are not the same numbers
    for row in range(len(hashes)):
        mixed[row] = _splitmix(hashes[row] ^ key)


@kernel
def _uniform(hashes: Hashes, seed: np.uint64, numbers: npt.NDArray[np.float64]) -> None:
    key = _splitmix(seed)
    for row in range(len(hashes)):
        bits = _splitmix(hashes[row] ^ key) >> np.uint64(12)
        # 52 bits and a half are 53; one bit more, and the largest would round up to 1.
        numbers[row] = (np.float64(bits) + 0.5) * 2.0**-52
