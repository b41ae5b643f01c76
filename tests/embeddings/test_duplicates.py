"""Semantic duplicates: against walks over all pairs."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from dvsel.embeddings import duplicates
from dvsel.embeddings.duplicates import semantic_duplicates
from dvsel.embeddings.neighbours import unit

pytestmark = pytest.mark.usefixtures("one_thread")


def by_pairs(vectors: npt.NDArray[Any], order: npt.NDArray[np.int64], threshold: float, against: str) -> list[bool]:
    """The definitions."""
    dropped, earlier = [False] * len(vectors), list[int]()
    for row in order.tolist():
        dropped[row] = any(float(vectors[row] @ vectors[other]) >= threshold for other in earlier)
        if against == "all" or not dropped[row]:
            earlier.append(row)
    return dropped


def on_a_circle(angles: list[float]) -> npt.NDArray[np.float32]:
    return np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1).astype(np.float32)


angle = st.integers(0, 359).map(float) | st.just(float("nan"))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(angle, max_size=30), st.randoms(), st.sampled_from(["kept", "all"]), st.integers(1, 8), st.integers(1, 8)
)
def test_as_by_looking_at_all_pairs(
    angles: list[float], random: Any, against: Literal["kept", "all"], block: int, kept: int
) -> None:
    vectors = on_a_circle(angles)
    order = np.array(random.sample(range(len(angles)), len(angles)), np.int64)
    threshold = float(np.cos(np.radians(10.5)))  # between whole degrees, so that rounding decides nothing
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_BLOCK", block)
        patch.setattr(duplicates, "_KEPT", kept)
        dropped = semantic_duplicates(vectors, order, threshold, against)
    assert dropped.dtype == np.bool_
    assert dropped.tolist() == by_pairs(vectors, order, threshold, against)


@pytest.mark.parametrize("against", ["kept", "all"])
def test_blocks_of_the_usual_size(against: Literal["kept", "all"]) -> None:
    generator = np.random.default_rng(0)
    vectors = unit(
        generator.normal(size=(30, 8))[generator.integers(0, 30, 2500)] + 0.3 * generator.normal(size=(2500, 8))
    )
    order = generator.permutation(2500)
    dropped = semantic_duplicates(vectors, order, 0.95, against)
    assert dropped.tolist() == by_pairs(vectors, order, 0.95, against)
    assert 0.2 < dropped.mean() < 0.99


def test_a_chain_loses_only_those_beside_a_kept_one() -> None:
    chain = on_a_circle([0, 10, 20, 30, 40])
    threshold = float(np.cos(np.radians(15)))
    order = np.arange(5)
    assert semantic_duplicates(chain, order, threshold).tolist() == [False, True, False, True, False]
    assert semantic_duplicates(chain, order, threshold, "all").tolist() == [False, True, True, True, True]


def test_the_best_of_a_group_stays() -> None:
    vectors = on_a_circle([0, 90, 0, 90, 0])
    dropped = semantic_duplicates(vectors, np.array([4, 1, 0, 2, 3]), 0.99)
    assert np.flatnonzero(~dropped).tolist() == [1, 4]


def test_each_dropped_document_has_a_kept_one_before_it() -> None:
    generator = np.random.default_rng(0)
    vectors = unit(generator.normal(size=(3000, 4)))
    order = generator.permutation(3000)
    dropped = semantic_duplicates(vectors, order, 0.9)
    rank = np.argsort(order)
    kept = np.flatnonzero(~dropped)
    same = vectors @ vectors[kept].T >= 0.9 - 1e-6
    before = rank[kept] < rank[:, None]
    assert ((same & before).any(axis=1) | ~dropped).all()
    closer = vectors[kept] @ vectors[kept].T >= 0.9 + 1e-6
    assert not (closer & before[kept]).any()


def test_documents_without_a_vector_stay() -> None:
    vectors = np.full((2000, 3), np.nan, np.float32)
    vectors[[5, 1500]] = [1, 0, 0]
    order = np.arange(2000)
    for dropped in (semantic_duplicates(vectors, order, 0.5), semantic_duplicates(vectors, order, 0.5, "all")):
        assert np.flatnonzero(dropped).tolist() == [1500]
