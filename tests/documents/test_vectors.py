"""Makers of vectors: only what was made alike is compared."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from dvsel.documents.vectors import Maker, Vectors
from dvsel.embeddings import EmbedderOptions
from dvsel.errors import UserError

MAKER = Maker("models/one", "00ff", "mean", 6, 128)


def test_the_same_files_in_another_folder_make_the_same_vectors() -> None:
    MAKER.check_same(dataclasses.replace(MAKER, model="elsewhere/one"), "these", "those")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"digest": "0000"}, "the model's files differ"),
        ({"pooling": "cls"}, "pooling mean and cls"),
        ({"layer": 3}, "layer 6 and 3"),
        ({"max_tokens": 64}, "max_tokens 128 and 64"),
    ],
)
def test_any_difference_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=rf"those were embedded by models/one.*\({says}\)"):
        MAKER.check_same(dataclasses.replace(MAKER, **change), "these", "those")


def test_options_that_make_the_same_again() -> None:
    made = MAKER.chosen_in(EmbedderOptions(batch_tokens=512))
    assert made == EmbedderOptions("models/one", "mean", 6, 128, 512)
    assert Maker.of(dataclasses.asdict(MAKER)) == MAKER


def test_rows_are_taken_and_joined() -> None:
    one = Vectors(np.arange(6, dtype=np.float16).reshape(3, 2), MAKER)
    joined = Vectors.join([one.take(np.array([2, 0])), one])
    assert joined.values.tolist() == [[4, 5], [0, 1], [0, 1], [2, 3], [4, 5]]
    assert len(joined) == 5 and joined.maker == MAKER
