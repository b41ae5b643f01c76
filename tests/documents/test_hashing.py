"""XXH64 against the xxhash package; the noise against what uniform noise must look like."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.documents.columns import Column
from dvsel.documents.hashing import combine, hash_rows, uniform

HASHES = np.random.default_rng(0).integers(0, 2**64, 100_000, np.uint64)
EXTREMES = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)


def expected(rows: list[bytes], seed: int = 0) -> list[int]:
    return [xxhash.xxh64_intdigest(row, seed) for row in rows]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200)), st.integers(0, 2**64 - 1))
def test_a_row_hashes_to_its_xxh64(rows: list[bytes], seed: int) -> None:
    assert hash_rows(Column.of(rows), seed).tolist() == expected(rows, seed)


def test_rows_of_every_length_and_long_ones() -> None:
    noise = np.random.default_rng(1).bytes(1_000_003)
    rows = [noise[:size] for size in [*range(201), 4_095, 65_536, len(noise)]]
    assert hash_rows(Column.of(rows)).tolist() == expected(rows)


def test_missing_and_empty_rows_hash_alike() -> None:
    assert hash_rows(Column.of([None, b""])).tolist() == expected([b"", b""])


def test_no_rows() -> None:
    assert hash_rows(Column.of([])).shape == (0,)


def test_combine_is_xxh64_of_both() -> None:
    first, second = HASHES[:1000], HASHES[1000:2000]
    pairs = [a.tobytes() + b.tobytes() for a, b in zip(first, second, strict=True)]
    assert combine(first, second).tolist() == expected(pairs)
    assert (combine(first, second) != combine(second, first)).all()


@pytest.mark.parametrize("seed", [0, 1, 7, 2**63, -1])
def test_uniform_numbers_lie_inside_the_open_interval(seed: int) -> None:
    numbers = uniform(np.concatenate([EXTREMES, HASHES]), seed)
    assert numbers.dtype == np.float64
    assert (numbers > 0).all() and (numbers < 1).all()


def test_uniform_numbers_fill_the_interval_evenly() -> None:
    counts = np.histogram(uniform(HASHES, 3), 100, (0, 1))[0]
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_square < 160  # 99 degrees of freedom: exceeded once in 10,000 times


def test_consecutive_hashes_give_unrelated_numbers() -> None:
    numbers = uniform(np.arange(100_000, dtype=np.uint64), 0)
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.015
    assert abs(numbers.mean() - 0.5) < 0.004


def test_another_seed_gives_unrelated_numbers_and_the_same_seed_the_same() -> None:
    assert np.array_equal(uniform(HASHES, 5), uniform(HASHES[::-1].copy(), 5)[::-1])
    assert abs(np.corrcoef(uniform(HASHES, 5), uniform(HASHES, 6))[0, 1]) < 0.015
