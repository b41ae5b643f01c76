"""K-means: against scikit-learn, from the same centres and in what it reaches."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from dvsel.embeddings import clusters
from dvsel.embeddings.clusters import assign, fit_centres, improved
from dvsel.embeddings.neighbours import unit

pytestmark = pytest.mark.usefixtures("one_thread")


def mixture(count: int, centres: int, seed: int, width: int = 24) -> npt.NDArray[np.float32]:
    """Unit vectors around more and less common directions."""
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet(np.full(centres, 2.0))
    means = generator.normal(size=(centres, width))
    return unit(means[generator.choice(centres, count, p=shares)] + 0.6 * generator.normal(size=(count, width)))


def inertia(sample: npt.NDArray[Any], centres: npt.NDArray[Any]) -> float:
    differences = sample[:, None].astype(np.float64) - centres[None]
    return float((differences**2).sum(axis=2).min(axis=1).sum())


@pytest.mark.parametrize("count", [1, 7, 40])
def test_the_same_as_scikit_learn_from_the_same_centres(count: int) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    sample = mixture(1500, 12, seed=count)
    start = sample[:count]
    for steps in (1, 4, 200):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            peer = cluster.KMeans(count, init=start, n_init=1, max_iter=steps, algorithm="lloyd", tol=0).fit(sample)
        np.testing.assert_allclose(
            improved(sample, start, steps), peer.cluster_centers_, atol=2e-3 if steps > 4 else 1e-5
        )


def test_as_good_as_scikit_learn_from_seeds_of_its_own() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    sample = mixture(4000, 60, seed=0)
    ours = [inertia(sample, fit_centres(sample, 50, seed)) for seed in range(5)]
    peers = [cluster.KMeans(50, n_init=1, random_state=seed).fit(sample).inertia_ for seed in range(5)]
    assert np.mean(ours) <= 1.015 * np.mean(peers)
    drawn = [inertia(sample, improved(sample, sample[seed * 50 :][:50], 25)) for seed in range(5)]
    assert np.mean(ours) < np.mean(drawn), "the seeds are no better than rows drawn at random"


def test_clusters_far_apart_are_found() -> None:
    generator = np.random.default_rng(0)
    places = 100 * np.arange(20)[:, None]
    sample = (places[generator.integers(0, 20, 1000)] + generator.normal(size=(1000, 3))).astype(np.float32)
    centres = fit_centres(sample, 20, seed=3)
    np.testing.assert_allclose(np.sort(centres[:, 0]), places[:, 0], atol=1)


def test_the_same_seed_gives_the_same_centres() -> None:
    sample = mixture(2000, 10, seed=1)
    first = fit_centres(sample, 16, seed=5)
    np.testing.assert_array_equal(fit_centres(sample, 16, seed=5), first)
    assert not np.array_equal(fit_centres(sample, 16, seed=6), first)


def test_threads_have_no_say() -> None:
    torch = pytest.importorskip("torch")
    sample = mixture(3000, 10, seed=1)
    one = fit_centres(sample, 30, seed=5)
    torch.set_num_threads(2)
    two = fit_centres(sample, 30, seed=5)
    torch.set_num_threads(1)
    np.testing.assert_allclose(two, one, atol=1e-5)


def test_rows_without_a_vector_are_passed_over() -> None:
    sample = mixture(500, 5, seed=0)
    holes = np.concatenate([sample[:200], np.full((3, sample.shape[1]), np.nan, np.float32), sample[200:]])
    centres = fit_centres(holes, 8, seed=0)
    assert np.isfinite(centres).all() and len(centres) == 8
    cell, distance = assign(holes, centres)
    assert (cell == -1).tolist() == np.isnan(distance).tolist() == [200 <= row < 203 for row in range(503)]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 6), max_size=40), st.integers(1, 10), st.integers(0, 5))
def test_never_more_centres_than_distinct_rows(values: list[int], count: int, seed: int) -> None:
    sample = np.array([[np.cos(value), np.sin(value)] for value in values], np.float32).reshape(-1, 2)
    centres = fit_centres(sample, count, seed)
    distinct = len(set(values))
    assert centres.shape == (min(count, distinct), 2)
    if count >= distinct:
        np.testing.assert_allclose(assign(sample, centres)[1], 0, atol=1e-12)
        np.testing.assert_array_equal(np.unique(centres, axis=0), np.unique(sample, axis=0))


def test_rare_rows_that_the_seeding_part_misses_are_still_found() -> None:
    sample = np.ones((1000, 2), np.float32)
    sample[700] = [5, 5]
    assert len(fit_centres(sample, 2, seed=0)) == 2


def test_a_cell_that_loses_its_rows_gets_the_farthest_one() -> None:
    sample = np.array([[0, 0], [1, 0], [0, 1], [9, 9]], np.float32)
    moved = improved(sample, np.array([[0, 0], [100, 100]], np.float32), steps=1)
    np.testing.assert_allclose(moved, [[1 / 3, 1 / 3], [9.0, 9.0]], rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 9), st.integers(1, 30))
def test_each_vector_goes_to_its_nearest_centre(count: int, cells: int, seed: int, block: int) -> None:
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(count, 5)).astype(np.float32)
    centres = generator.normal(size=(cells, 5)).astype(np.float32)
    exact = ((vectors[:, None].astype(np.float64) - centres[None]) ** 2).sum(axis=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "_PRODUCTS", block)
        cell, distance = assign(vectors, centres)
    assert cell.dtype == np.int32 and distance.dtype == np.float32
    np.testing.assert_array_equal(cell, exact.argmin(axis=1))
    np.testing.assert_allclose(distance, exact.min(axis=1), rtol=1e-5)


def test_a_row_at_its_centre_has_distance_zero() -> None:
    vectors = mixture(100, 3, seed=0, width=384)
    cell, distance = assign(vectors, vectors)
    np.testing.assert_array_equal(cell, np.arange(100))
    assert (distance == 0).all()
