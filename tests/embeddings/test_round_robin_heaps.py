"""Round-robin with bounded heaps: against the rule on full lists, whatever the batches and merges."""

from __future__ import annotations

import itertools
import random as chance
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.embeddings.round_robin_heaps import Heaps, Turns

Scores = npt.NDArray[np.float32]


def exact(score: Scores, tie: npt.NDArray[Any], cost: npt.NDArray[Any], limit: int) -> list[tuple[int, int]]:
    """The rule: (document, column) of each pick, from full lists."""
    lists = [
        sorted(np.flatnonzero(~np.isnan(one)).tolist(), key=lambda row: (-one[row], -int(tie[row]), row))
        for one in score.T
    ]
    picks, spent, column = list[tuple[int, int]](), 0, 0
    taken: set[int] = set()
    while spent < limit and any(set(one) - taken for one in lists):
        left = [row for row in lists[column] if row not in taken]
        if left:
            if spent + cost[left[0]] > limit:
                break
            spent += cost[left[0]]
            taken.add(left[0])
            picks.append((left[0], column))
        column = (column + 1) % len(lists)
    return picks


def heaps(
    score: Scores, tie: npt.NDArray[Any], cost: npt.NDArray[Any], size: int, cuts: Any = (), first: int = 0
) -> Heaps:
    """Heaps of the documents, offered in batches."""
    made = Heaps(score.shape[1], size)
    edges = [0, *sorted(cuts), len(score)]
    for start, stop in itertools.pairwise(edges):
        made.add(score[start:stop], tie[start:stop], first + start, cost[start:stop])
    return made


def picks(turns: Turns) -> list[tuple[int, int]]:
    assert turns.position.dtype == np.int64 and turns.column.dtype == np.int32
    return list(zip(turns.position.tolist(), turns.column.tolist(), strict=True))


@st.composite
def pools(draw: st.DrawFn) -> tuple[Scores, npt.NDArray[np.uint64], npt.NDArray[np.int64], int]:
    """Scores of many ties, ties, costs, and a limit."""
    count, columns = draw(st.integers(0, 25)), draw(st.integers(1, 4))
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    values = np.array([-np.inf, -1, -0.0, 0.0, 0.5, 2, np.inf, np.nan], np.float32)
    tie = generator.choice(np.array([0, 1, 2**63, 2**64 - 1], np.uint64), count)
    return (
        values[generator.integers(0, 8, (count, columns))],
        tie,
        generator.integers(0, 5, count),
        draw(st.integers(0, 60)),
    )


@settings(deadline=None, max_examples=300)
@given(pools())
def test_heaps_that_hold_all_follow_the_rule(pool: Any) -> None:
    score, tie, cost, limit = pool
    found = heaps(score, tie, cost, max(len(score), 1)).turns(limit)
    assert picks(found) == exact(score, tie, cost, limit)
    assert found.exhausted == [] and found.sure == len(found.position)


@settings(deadline=None, max_examples=300)
@given(pools(), st.integers(1, 8))
def test_small_heaps_follow_the_rule_until_one_is_exhausted(pool: Any, size: int) -> None:
    score, tie, cost, limit = pool
    found = heaps(score, tie, cost, size).turns(limit)
    expected = exact(score, tie, cost, limit)
    assert picks(found)[: found.sure] == expected[: found.sure]
    if not found.exhausted:
        assert picks(found) == expected
    scored = (~np.isnan(score)).sum(axis=0)
    assert all(scored[column] > size for column in found.exhausted)
    assert cost[found.position].sum() <= limit
    assert len(set(found.position.tolist())) == len(found.position)


@settings(deadline=None, max_examples=200)
@given(pools(), st.integers(1, 8), st.data())
def test_batches_and_merges_change_nothing(pool: Any, size: int, data: st.DataObject) -> None:
    score, tie, cost, limit = pool
    whole = heaps(score, tie, cost, size).turns(limit)
    cut = st.lists(st.integers(0, len(score)), max_size=4)
    assert_same(heaps(score, tie, cost, size, data.draw(cut)).turns(limit), whole)
    edges = [0, *sorted(data.draw(cut)), len(score)]
    parts = [
        heaps(score[start:stop], tie[start:stop], cost[start:stop], size, first=start)
        for start, stop in itertools.pairwise(edges)
    ]
    data.draw(st.randoms()).shuffle(parts)
    merged = parts[0]
    for part in parts[1:]:
        merged.merge(part)
    assert_same(merged.turns(limit), whole)


def assert_same(found: Turns, expected: Turns) -> None:
    assert picks(found) == picks(expected)
    assert found[2:] == expected[2:]


def test_batches_come_in_any_order() -> None:
    generator = np.random.default_rng(0)
    score, tie = generator.random((5000, 6), np.float32), generator.integers(0, 1 << 63, 5000).astype(np.uint64)
    cost = generator.integers(1, 100, 5000)
    ordered = heaps(score, tie, cost, 200, range(0, 5000, 100))
    shuffled = Heaps(6, 200)
    starts = list(range(0, 5000, 100))
    chance.Random(0).shuffle(starts)
    for start in starts:
        stop = start + 100
        shuffled.add(score[start:stop], tie[start:stop], start, cost[start:stop])
    found = ordered.turns(30_000)
    assert found.exhausted == [] and picks(found) == exact(score, tie, cost, 30_000)
    assert_same(shuffled.turns(30_000), found)


def test_exhaustion_is_told_with_the_column() -> None:
    score = np.array([[9, 1], [8, 9], [7, 8], [6, 7]], np.float32)
    made = heaps(score, np.zeros(4, np.uint64), np.ones(4, np.int64), size=2)
    assert made.turns(3).exhausted == [0], "its second, row 1, was taken by the other, and it holds no third"
    assert made.turns(3).sure == 2
    assert made.turns(2).exhausted == []


def test_a_column_that_holds_all_it_scored_is_passed_over() -> None:
    score = np.array([[9, 1], [np.nan, 2], [np.nan, 3]], np.float32)
    found = heaps(score, np.zeros(3, np.uint64), np.ones(3, np.int64), size=3).turns(3)
    assert picks(found) == [(0, 0), (2, 1), (1, 1)]
    assert found.exhausted == []


def test_scores_of_queries_as_a_product() -> None:
    generator = np.random.default_rng(0)
    queries, vectors = generator.normal(size=(10, 16)), generator.normal(size=(3000, 16))
    made = Heaps(10, 50)
    tie, cost = np.zeros(3000, np.uint64), np.ones(3000, np.int64)
    for first in range(0, 3000, 700):
        stop = first + 700
        made.add((queries @ vectors[first:stop].T).T.astype(np.float32), tie[first:stop], first, cost[first:stop])
    score = (vectors @ queries.T).astype(np.float32)
    assert picks(made.turns(100)) == exact(score, tie, cost, 100)
