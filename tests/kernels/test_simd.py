"""The vector primitives against a byte at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.kernels import simd
from dvsel.kernels.jit import kernel
from dvsel.kernels.simd import WIDTH

Bytes = npt.NDArray[np.uint8]

bytes_values = st.integers(0, 255)
vectors = st.binary(min_size=WIDTH, max_size=WIDTH)
places = st.integers(0, 70)


@kernel
def equal(data: Any, at: Any, byte: Any) -> Any:
    return simd.equal(data, at, byte)


@kernel
def below(data: Any, at: Any, byte: Any) -> Any:
    return simd.below(data, at, byte)


@kernel
def within(data: Any, at: Any, first: Any, last: Any) -> Any:
    return simd.within(data, at, first, last)


@kernel
def copy(target: Any, to: Any, source: Any, at: Any) -> Any:
    simd.copy(target, to, source, at)


@kernel
def copy_lowered(target: Any, to: Any, source: Any, at: Any) -> Any:
    simd.copy_lowered(target, to, source, at)


@kernel
def load64(data: Any, at: Any) -> Any:
    return simd.load64(data, at)


@kernel
def trailing_zeros(mask: Any) -> Any:
    return simd.trailing_zeros(mask)


@kernel
def count_ones(mask: Any) -> Any:
    return simd.count_ones(mask)


@kernel
def multiply_high(one: Any, other: Any) -> Any:
    return simd.multiply_high(one, other)


@kernel
def prefetch(data: Any, at: Any) -> None:
    simd.prefetch(data, at)


def placed(vector: bytes, at: int) -> Bytes:
    """A buffer with the vector at `at` and other bytes around."""
    return np.frombuffer(b"\x55" * at + vector + b"\xaa" * 9, np.uint8).copy()


def mask_of(hits: list[bool]) -> int:
    return sum(1 << bit for bit, hit in enumerate(hits) if hit)


@settings(deadline=None)
@given(vectors, places, bytes_values)
def test_equal_and_below(vector: bytes, at: int, byte: int) -> None:
    data = placed(vector, at)
    assert equal(data, at, np.uint8(byte)) == mask_of([value == byte for value in vector])
    assert below(data, at, np.uint8(byte)) == mask_of([value < byte for value in vector])


@settings(deadline=None)
@given(vectors, places, bytes_values, bytes_values)
def test_within_a_range(vector: bytes, at: int, one: int, other: int) -> None:
    first, last = sorted((one, other))
    found = within(placed(vector, at), at, np.uint8(first), np.uint8(last))
    assert found == mask_of([first <= value <= last for value in vector])


def test_every_byte_is_compared_unsigned() -> None:
    for byte in range(256):
        vector = bytes([byte] * WIDTH)
        assert equal(placed(vector, 3), 3, np.uint8(byte)) == 2**64 - 1
        assert below(placed(vector, 3), 3, np.uint8(byte)) == 0
        assert below(placed(vector, 3), 3, np.uint8(255)) == (2**64 - 1 if byte < 255 else 0)
        assert within(placed(vector, 3), 3, np.uint8(byte), np.uint8(byte)) == 2**64 - 1


@settings(deadline=None)
@given(vectors, places, places)
def test_copies_touch_their_64_bytes_alone(vector: bytes, at: int, to: int) -> None:
    for function, expected in ((copy, vector), (copy_lowered, vector.lower())):
        target = np.full(to + WIDTH + 5, 7, np.uint8)
        function(target, to, placed(vector, at), at)
        assert target.tobytes() == b"\x07" * to + expected + b"\x07" * 5


def test_lowering_is_that_of_ascii() -> None:
    for first in range(0, 256, WIDTH):
        vector = bytes(range(first, first + WIDTH))
        target = np.zeros(WIDTH, np.uint8)
        copy_lowered(target, 0, placed(vector, 0), 0)
        assert target.tobytes() == vector.lower()


@settings(deadline=None)
@given(vectors, places)
def test_a_word_is_8_bytes_lowest_first(vector: bytes, at: int) -> None:
    assert load64(placed(vector, at), at) == int.from_bytes(vector[:8], "little")


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1) | st.integers(0, 63).map(lambda bit: 1 << bit))
def test_bits_are_counted(mask: int) -> None:
    assert count_ones(np.uint64(mask)) == mask.bit_count()
    assert trailing_zeros(np.uint64(mask)) == ((mask & -mask).bit_length() - 1 if mask else 64)


@pytest.mark.parametrize("mask", [0, 1, 2**63, 2**64 - 1])
def test_bits_at_the_ends(mask: int) -> None:
    assert count_ones(np.uint64(mask)) == mask.bit_count()
    assert trailing_zeros(np.uint64(mask)) == {0: 64, 1: 0, 2**63: 63, 2**64 - 1: 0}[mask]


numbers = st.integers(0, 2**64 - 1)


@settings(deadline=None)
@given(numbers, numbers)
def test_the_upper_half_of_a_product(one: int, other: int) -> None:
    assert multiply_high(np.uint64(one), np.uint64(other)) == one * other >> 64


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.float32])
def test_prefetching_changes_nothing(dtype: Any) -> None:
    data = np.arange(100).astype(dtype)
    for at in (0, 99, 10**6):  # even beyond the end
        prefetch(data, at)
    assert np.array_equal(data, np.arange(100))
