"""Greedy facility location: against submodlib, the definition, and the best of all sets."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from dvsel.embeddings.facility import greedy, taylor_log_probability, value
from dvsel.embeddings.neighbours import unit

pytestmark = pytest.mark.usefixtures("one_thread")


def rows(count: int, seed: int, width: int = 8) -> npt.NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    return unit(
        generator.normal(size=(6, width))[generator.integers(0, 6, count)] + generator.normal(size=(count, width))
    )


def similarity(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return np.maximum(wide @ wide.T, 0)


def worth(similar: npt.NDArray[np.float64], chosen: Any) -> float:
    return float(similar[:, list(chosen)].max(axis=1, initial=0).sum())


def plain_greedy(vectors: npt.NDArray[Any], cost: npt.NDArray[np.int64], limit: int) -> list[int]:
    """The definition of cost-benefit greedy."""
    similar, chosen = similarity(vectors), list[int]()
    while len(chosen) < len(vectors) and cost[chosen].sum() < limit:
        left = [row for row in range(len(vectors)) if row not in chosen]
        gains = [(worth(similar, [*chosen, row]) - worth(similar, chosen)) / max(cost[row], 1) for row in left]
        chosen.append(left[int(np.argmax(gains))])
    return chosen


def test_picks_and_gains_of_submodlib() -> None:
    """But for pairs that nothing else is near to: either raises f alike, and rounding says which."""
    submodlib = pytest.importorskip("submodlib")
    vectors = rows(400, seed=1, width=32)
    similar = similarity(vectors)
    peer = submodlib.FacilityLocationFunction(n=400, mode="dense", separate_rep=False, sijs=similar)
    expected = peer.maximize(budget=100, optimizer="NaiveGreedy", show_progress=False)
    picked = greedy(vectors, np.ones(400, np.int64), 100, seed=0, exact=True)
    same = [row == other for row, (other, _) in zip(picked.order.tolist(), expected, strict=True)]
    assert all(same[:40]) and sum(same) >= 95
    np.testing.assert_allclose(picked.gain, [gain for _, gain in expected], rtol=1e-4)
    assert worth(similar, picked.order) == pytest.approx(worth(similar, [row for row, _ in expected]), rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 25), st.integers(0, 10**6), st.booleans(), st.integers(1, 200))
def test_exact_is_plain_greedy(count: int, seed: int, priced: bool, limit: int) -> None:
    vectors = rows(count, seed)
    cost = np.random.default_rng(seed).integers(0, 20, count) if priced else np.ones(count, np.int64)
    picked = greedy(vectors, cost, limit, seed=0, exact=True)
    similar, expected = similarity(vectors), plain_greedy(vectors, cost, limit)
    assert len(set(picked.order.tolist())) == len(picked.order)
    if picked.order.tolist() != expected:  # equal up to rounding: then what the sets cover is as good
        assert worth(similar, picked.order) == pytest.approx(worth(similar, expected), rel=1e-5)
    reached = [worth(similar, picked.order[:length]) for length in range(len(picked.order) + 1)]
    np.testing.assert_allclose(picked.gain, np.diff(reached), atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(0, 10**6), st.booleans(), st.integers(0, 300))
def test_picks_until_the_limit_is_reached(count: int, seed: int, exact: bool, limit: int) -> None:
    cost = np.random.default_rng(seed).integers(0, 20, count)
    picked = greedy(rows(count, seed), cost, limit, seed, exact)
    assert picked.order.dtype == np.int64 and picked.gain.dtype == np.float32
    spent = cost[picked.order]
    assert len(set(picked.order.tolist())) == len(picked.order) == len(picked.gain)
    assert spent[:-1].sum() < limit or not len(spent)
    assert spent.sum() >= limit or len(spent) == count


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 9), st.integers(0, 10**6), st.integers(1, 30))
def test_at_least_the_promised_share_of_the_best_set(count: int, seed: int, limit: int) -> None:
    vectors = rows(count, seed, width=3)
    cost = np.random.default_rng(seed).integers(1, 10, count)
    similar = similarity(vectors)
    sets = itertools.chain.from_iterable(itertools.combinations(range(count), size) for size in range(count + 1))
    best = max(worth(similar, chosen) for chosen in sets if cost[list(chosen)].sum() <= limit)
    found = greedy(vectors, cost, limit, seed=0, exact=True)
    assert worth(similar, found.order) >= (1 - 1 / math.e) * best - 1e-6


def test_stochastic_is_nearly_as_good_and_follows_its_seed() -> None:
    vectors, cost = rows(800, seed=0, width=32), np.ones(800, np.int64)
    best = value(vectors, greedy(vectors, cost, 40, 0, exact=True).order)
    found = [greedy(vectors, cost, 40, seed) for seed in range(5)]
    assert all(0.95 * best < value(vectors, picked.order) <= best * 1.001 for picked in found)
    assert found[0].order.tolist() != found[1].order.tolist()
    assert greedy(vectors, cost, 40, 0).order.tolist() == found[0].order.tolist()
    rough = [value(vectors, greedy(vectors, cost, 40, seed, epsilon=0.9).order) for seed in range(5)]
    assert np.mean(rough) < np.mean([value(vectors, picked.order) for picked in found])


def test_stochastic_that_looks_at_all_is_exact() -> None:
    vectors, cost = rows(60, seed=0), np.random.default_rng(0).integers(1, 9, 60)
    exact = greedy(vectors, cost, 90, 0, exact=True)
    found = greedy(vectors, cost, 90, 0, epsilon=1e-30)
    np.testing.assert_array_equal(found.order, exact.order)
    np.testing.assert_array_equal(found.gain, exact.gain)


@pytest.mark.parametrize("exact", [True, False])
def test_each_draw_is_of_what_is_left(exact: bool) -> None:
    vectors, cost = rows(200, seed=1), np.ones(200, np.int64)
    picked = greedy(vectors, cost, 10**9, 0, exact)
    assert sorted(picked.order.tolist()) == list(range(200))
    assert picked.gain.sum() == pytest.approx(value(vectors, np.arange(200)), rel=1e-5)


def test_documents_that_are_alike() -> None:
    vectors = np.repeat(rows(1, seed=0), 30, axis=0)
    picked = greedy(vectors, np.ones(30, np.int64), 3, 0, exact=True)
    assert picked.order.tolist() == [0, 1, 2]
    np.testing.assert_allclose(picked.gain, [30, 0, 0], atol=1e-4)


def test_opposite_documents_do_not_cover_each_other() -> None:
    one = rows(1, seed=0)
    vectors = np.concatenate([one, one, one, -one])
    assert value(vectors, np.array([0])) == pytest.approx(3)
    assert greedy(vectors, np.ones(4, np.int64), 2, 0, exact=True).order.tolist() == [0, 3]


def test_a_cheap_document_that_covers_as_much_goes_first() -> None:
    one, other = np.eye(2, dtype=np.float32)
    vectors = np.array([one, one, one, other, other])
    assert greedy(vectors, np.array([9, 9, 9, 2, 2]), 1, 0, exact=True).order.tolist() == [3]
    assert greedy(vectors, np.array([2, 9, 9, 2, 2]), 1, 0, exact=True).order.tolist() == [0]


def test_nothing_to_pick() -> None:
    for vectors, limit in ((rows(0, 0), 5), (rows(5, 0), 0)):
        for exact in (True, False):
            order, gain = greedy(vectors, np.ones(len(vectors), np.int64), limit, 0, exact)
            assert order.shape == gain.shape == (0,)


def test_the_value_is_the_definition() -> None:
    vectors = rows(9000, seed=0)
    chosen = np.array([5, 17, 8999])
    assert value(vectors, chosen) == pytest.approx(
        np.maximum(vectors @ vectors[chosen].T, 0).max(axis=1).sum(), rel=1e-5
    )
    assert value(vectors, np.empty(0, np.int64)) == 0


def test_taylor_softmax_of_gains() -> None:
    gains = np.array([0, 1, 3, 120], np.float32)
    found = taylor_log_probability(gains)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.log([1, 2.5, 8.5, 7321]), rtol=1e-6)
