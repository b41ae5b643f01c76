"""Exact neighbours: against a full sort of all products, and against faiss."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from dvsel.embeddings import neighbours
from dvsel.embeddings.neighbours import nearest, unit

pytestmark = pytest.mark.usefixtures("one_thread")


def rows(count: int, seed: int, width: int = 16) -> npt.NDArray[np.float32]:
    return unit(np.random.default_rng(seed).normal(size=(count, width)))


def by_sorting(
    queries: npt.NDArray[Any], base: npt.NDArray[Any], count: int, skip: npt.NDArray[Any] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The definition: all products, sorted; those that are not to be found at the end, as -1 and NaN."""
    product = queries.astype(np.float64) @ base.T.astype(np.float64)
    if skip is not None:
        product[np.flatnonzero(skip >= 0), skip[skip >= 0]] = np.nan
    product = np.concatenate([product, np.full((len(queries), count), np.nan)], axis=1)
    order = np.argsort(-product, axis=1, kind="stable")[:, :count]  # NaN goes to the end
    similarity = np.take_along_axis(product, order, 1)
    return np.where(np.isnan(similarity), -1, order), similarity


def check(queries: npt.NDArray[Any], base: npt.NDArray[Any], count: int, skip: Any = None) -> None:
    index, similarity = nearest(queries, base, count, skip)
    assert index.dtype == np.int64 and similarity.dtype == np.float32
    expected_index, expected_similarity = by_sorting(queries, base, count, skip)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_allclose(similarity, expected_similarity, atol=1e-6)


small = st.integers(-2, 2).map(float)  # products are exact, and many are equal


def matrices(most: int) -> st.SearchStrategy[npt.NDArray[np.float32]]:
    row = st.lists(small, min_size=3, max_size=3) | st.just([np.nan] * 3)
    return st.lists(row, min_size=0, max_size=most).map(lambda found: np.array(found, np.float32).reshape(-1, 3))


@settings(deadline=None, max_examples=200)
@given(matrices(6), matrices(20), st.integers(1, 25), st.data())
def test_as_by_sorting_all_with_ties_by_the_lower_row(queries: Any, base: Any, count: int, data: st.DataObject) -> None:
    skips = st.lists(st.integers(-1, len(base) - 1), min_size=len(queries), max_size=len(queries))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_BASE", data.draw(st.integers(1, 8)))
        patch.setattr(neighbours, "_QUERIES", 2)
        check(queries, base, count)
        check(queries, base, count, np.array(data.draw(skips), np.int64))


def test_blocks_of_the_usual_size() -> None:
    generator = np.random.default_rng(0)
    queries, base = (generator.integers(-9, 10, (count, 3)).astype(np.float32) for count in (1100, 9000))
    check(queries, base, 10)


def test_neighbours_of_the_base_itself() -> None:
    base = rows(300, 0)
    own = np.arange(300)
    index, similarity = nearest(base, base, 1)
    np.testing.assert_array_equal(index[:, 0], own)
    np.testing.assert_allclose(similarity, 1, atol=1e-6)
    check(base, base, 3, own)


@settings(deadline=None, max_examples=50)
@given(matrices(6), matrices(20), st.integers(1, 25))
def test_faiss_gives_the_same(queries: Any, base: Any, count: int) -> None:
    pytest.importorskip("faiss")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_searched", neighbours._by_faiss)
        check(queries, base, count)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("installed", [True, False])
def test_faiss_searches_where_it_is_installed_and_faster(
    quick: bool, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = []

    def by_faiss(*given: Any) -> Any:
        searches.append("faiss")
        return neighbours._by_torch(*given)

    monkeypatch.setattr("dvsel.linalg.cpu_matmul.available", lambda: quick)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: installed)
    monkeypatch.setattr(neighbours, "_by_faiss", by_faiss)
    check(rows(20, 0), rows(50, 1), 5)
    assert bool(searches) == (installed and not quick)


def test_unit_rows() -> None:
    given = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1], [1e30, 1e30], [1e-40, 0]], np.float32)
    found = unit(given)
    assert found.dtype == np.float32
    half = 0.5**0.5
    expected = [[0.6, 0.8], [np.nan] * 2, [np.nan] * 2, [np.nan] * 2, [half, half], [1, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(unit(given[:1].astype(np.float16)), [[0.6, 0.8]], rtol=1e-6)
    assert unit(np.empty((0, 2), np.float32)).shape == (0, 2)
