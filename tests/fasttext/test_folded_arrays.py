"""Folded models out of files that anyone may have written: what the kernels would read past is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dvsel.fasttext.folded import fold
from dvsel.fasttext.tables import LONGEST_RUN, SCHEMA, check, longest_run
from dvsel.schema import Unfit
from dvsel.schema import check as check_schema
from fasttext_definition import SHAPES, Shape, made

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("columns", "dim"), [(1, 1), (2, 3), (3, 2)])
def test_all_that_is_folded_passes(shape: Shape, columns: int, dim: int) -> None:
    arrays = fold(made(shape, dim), np.ones((columns, dim), np.float32))
    check_schema(arrays, SCHEMA)
    check(arrays, columns)


def spec(*numbers: int) -> dict[str, Array]:
    return {"spec": np.array(numbers, np.int64)}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (spec(-1, 2, 0, 0), "spec is out of range"),
        (spec(0, 65, 0, 0), "spec is out of range"),
        (spec(0, 2**40, 0, 0), "spec is out of range"),
        (spec(0, 2, 0, 65), "spec is out of range"),
        (spec(0, 2, 1, 3), "not of one width"),  # a column less than there are
        ({"ngrams": np.zeros((0, 1), np.float32)}, "ngrams is empty"),
        ({"ngrams": np.zeros((5, 2), np.float32)}, "not of one width"),
        ({"words": np.zeros((9, 1), np.uint32)}, "not of one width"),
        ({"words": np.zeros((9, 4), np.uint32)}, "not of one width"),
        ({"words": np.ones((9, 2), np.uint32)}, "so full that searches would not end"),
        ({"directions": np.zeros((1, 7), np.float32)}, "do not give 1 columns"),
    ],
)
def test_what_does_not_go_together(changes: dict[str, Array], complaint: str) -> None:
    arrays = fold(made(Shape(2, 50)), np.ones((1, 1), np.float32)) | changes
    check_schema(arrays, SCHEMA)
    with pytest.raises(Unfit, match=complaint):
        check(arrays, 1)


@pytest.mark.parametrize(
    ("taken", "run"), [([0, 0, 0], 0), ([1, 0, 1], 2), ([0, 1, 1, 0, 1, 0], 2), ([1, 1, 1], LONGEST_RUN + 1)]
)
def test_the_longest_run_goes_round_the_end(taken: list[int], run: int) -> None:
    assert longest_run(np.array(taken, np.uint32)) == run
