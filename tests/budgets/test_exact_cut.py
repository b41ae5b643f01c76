"""The cut against a plain sort."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dvsel.budgets import exact_cut
from dvsel.budgets.exact_cut import UNLIMITED, Chunk, Cut, cut


class Row(NamedTuple):
    key: float
    tie: int
    cost: int
    stratum: int = 0


def chunk_of(rows: list[Row], first: int = 0) -> Chunk:
    return Chunk(
        first,
        np.array([row.key for row in rows], np.float32),
        np.array([row.tie for row in rows], np.uint64),
        np.array([row.cost for row in rows], np.int64),
        np.array([row.stratum for row in rows], np.int32),
    )


def chunks_of(rows: list[Row], size: int) -> list[Chunk]:
    return [chunk_of(rows[first : first + size], first) for first in range(0, len(rows), size)]


def cut_of(rows: list[Row], budgets: list[int], size: int = 7, threads: int = 1) -> tuple[Cut, list[bool]]:
    chunks = chunks_of(rows, size)
    found = cut(lambda: [[chunk] for chunk in chunks], np.array(budgets, np.int64), threads)
    return found, [bool(kept) for chunk in chunks for kept in found.keep(chunk)]


def ranking(rows: list[Row], stratum: int) -> list[int]:
    eligible = [at for at, row in enumerate(rows) if row.stratum == stratum and not math.isnan(row.key)]
    return sorted(eligible, key=lambda at: (-rows[at].key, -rows[at].tie, at))


def prefix_that_fits(rows: list[Row], ranked: list[int], budget: int) -> list[int]:
    if budget == UNLIMITED:
        return ranked
    sums = itertools.accumulate(rows[at].cost for at in ranked)
    return ranked[: sum(1 for _ in itertools.takewhile(lambda total: total <= budget, sums))]


def check(rows: list[Row], budgets: list[int], found: Cut, kept: list[bool]) -> None:
    expected: set[int] = set()
    for stratum, budget in enumerate(budgets):
        ranked = ranking(rows, stratum)
        fits = prefix_that_fits(rows, ranked, budget)
        expected.update(fits)
        assert found.rows[stratum] == len(fits)
        assert found.cost[stratum] == sum(rows[at].cost for at in fits)
        assert found.eligible_rows[stratum] == len(ranked)
        assert found.eligible_cost[stratum] == sum(rows[at].cost for at in ranked)
        assert found.took_all[stratum] == (len(fits) == len(ranked))
        best_left_out = rows[ranked[len(fits)]].key if len(fits) < len(ranked) else -math.inf
        assert found.threshold[stratum] == best_left_out
    assert [at for at, is_kept in enumerate(kept) if is_kept] == sorted(expected)


few_keys = st.sampled_from([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-45, 3e38])
near_keys = st.integers(0, 40).map(lambda step: float(np.float32(1.0) + np.float32(step * 2.0**-23)))
keys = st.one_of(few_keys, near_keys, st.floats(width=32))
ties = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1), st.integers(0, 3).map(lambda high: high << 62))
costs = st.one_of(st.integers(0, 10), st.just(2**50))
rows_of_all_kinds = st.lists(st.builds(Row, keys, ties, costs, st.integers(-1, 3)), max_size=60)
amounts = st.one_of(st.integers(0, 60), st.sampled_from([UNLIMITED, 2**50, 2**51 + 7, 2**62]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(
    rows=rows_of_all_kinds,
    budgets=st.lists(amounts, min_size=1, max_size=3),
    size=st.integers(1, 70),
    gathered=st.integers(0, 20),
    wide_strata=st.sampled_from([0, 64]),
)
@example(rows=[Row(1.0, 5, 2)] * 9, budgets=[7], size=2, gathered=0, wide_strata=64)
@example(rows=[Row(-0.0, 1, 1), Row(0.0, 2, 1)], budgets=[1], size=1, gathered=0, wide_strata=0)
def test_as_a_sort_does_it(
    rows: list[Row],
    budgets: list[int],
    size: int,
    gathered: int,
    wide_strata: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exact_cut, "GATHERED", gathered)  # small ones make the search go down to the last digits
    monkeypatch.setattr(exact_cut, "_WIDE_STRATA", wide_strata)
    check(rows, budgets, *cut_of(rows, budgets, size))


def test_stops_at_the_first_row_that_does_not_fit() -> None:
    rows = [Row(3, 0, 4), Row(2, 0, 7), Row(1, 0, 1)]
    found, kept = cut_of(rows, [10])
    assert kept == [True, False, False]
    assert (found.rows[0], found.cost[0], found.threshold[0]) == (1, 4, 2.0)


def test_rows_without_cost_are_kept_while_they_fit() -> None:
    assert cut_of([Row(3, 0, 0), Row(2, 0, 5), Row(1, 0, 0), Row(0, 0, 1)], [5])[1] == [True] * 3 + [False]


def test_a_row_equal_in_all_is_kept_by_position() -> None:
    assert cut_of([Row(1, 9, 1)] * 10, [4], size=3)[1] == [True] * 4 + [False] * 6


def test_no_rows_and_no_budgets() -> None:
    found, kept = cut_of([], [5, UNLIMITED])
    assert kept == [] and found.took_all.tolist() == [True, True]
    assert cut_of([Row(1, 0, 1)], [])[1] == [False]


def a_large_pool(rows: int) -> Chunk:
    """Half of the keys agree in their first digit; a third of the rows have copies of their tie."""
    random = np.random.default_rng(0)
    key = np.where(random.random(rows) < 0.5, random.standard_normal(rows), 1 + random.random(rows) / 1000)
    tie = random.integers(0, 2**64, rows, dtype=np.uint64)
    return Chunk(
        0,
        key.astype(np.float32),
        np.where(random.random(rows) < 0.3, tie % np.uint64(3), tie),
        random.integers(0, 2000, rows),
        random.integers(-1, 100, rows).astype(np.int32),
    )


def pieces(pool: Chunk, starts: Iterable[int], size: int) -> Iterator[Chunk]:
    for at in starts:
        end = at + size
        yield Chunk(at, pool.key[at:end], pool.tie[at:end], pool.cost[at:end], pool.stratum[at:end])


def expected_of(pool: Chunk, budgets: np.ndarray) -> np.ndarray:
    """What numpy's sort keeps."""
    order = np.lexsort((np.arange(len(pool)), ~pool.tie, -pool.key, pool.stratum))
    kept = np.zeros(len(pool), np.bool_)
    for stratum, budget in enumerate(budgets):
        own = order[pool.stratum[order] == stratum]
        kept[own] = np.cumsum(pool.cost[own]) <= budget
    return kept


@pytest.mark.parametrize("strata", [1, 5, 100])
def test_a_large_pool_with_many_strata(strata: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_cut, "GATHERED", 1000)
    pool = a_large_pool(300_000)
    budgets = np.linspace(0, 1_000_000, strata).astype(np.int64)[::-1]
    found = cut(lambda: [pieces(pool, range(0, len(pool), 70_000), 70_000)], budgets)
    assert np.array_equal(found.keep(pool), expected_of(pool, budgets))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_parts_may_come_in_any_order_and_in_threads(threads: int) -> None:
    pool = a_large_pool(100_000)
    budgets = np.full(100, 200_000)
    starts = np.random.default_rng(threads).permutation(range(0, len(pool), 9_000)).tolist()
    found = cut(lambda: [pieces(pool, [at], 9_000) for at in starts], budgets, threads)
    assert np.array_equal(found.keep(pool), expected_of(pool, budgets))


@settings(deadline=None)
@given(
    st.lists(st.builds(Row, keys, ties, costs, st.just(0)), max_size=40, unique_by=lambda row: row.tie),
    st.randoms(),
)
def test_the_order_of_different_documents_does_not_matter(rows: list[Row], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first = {row for row, kept in zip(rows, cut_of(rows, [30])[1], strict=True) if kept}
    second = {row for row, kept in zip(shuffled, cut_of(shuffled, [30])[1], strict=True) if kept}
    assert first == second


def test_two_passes_are_the_rule() -> None:
    pool = a_large_pool(10_000)
    passes = []

    def start() -> list[list[Chunk]]:
        passes.append(1)
        return [[pool]]

    cut(start, np.array([50_000]))
    assert len(passes) == 2
    cut(start, np.array([UNLIMITED]))
    assert len(passes) == 3


def test_a_kernel_is_compiled_once_whatever_the_source_of_the_arrays() -> None:
    pool = a_large_pool(1000)
    read_only = np.frombuffer(pool.key.tobytes(), np.float32)
    strided = np.stack([pool.cost, pool.cost], axis=1)[:, 0]
    for chunk in (pool, Chunk(0, read_only, pool.tie, strided, pool.stratum)):
        cut(lambda chunk=chunk: [[chunk]], np.array([1000, 1000])).keep(chunk)  # type: ignore[misc]
    assert all(len(kernel.signatures) == 1 for kernel in (exact_cut._count, exact_cut._undecided, exact_cut._keep))  # type: ignore[union-attr]
