"""Options of an embedder, and what becomes of them on a pool that has vectors already."""

from __future__ import annotations

from typing import Any

import pytest

from dvsel.documents.vectors import Maker
from dvsel.embeddings import EmbedderOptions
from dvsel.errors import UserError
from dvsel.scorers.dsir import DSIR
from dvsel.scorers.target import Target

MAKER = Maker("models/small", "ab12", "mean", 6, 256)


def test_without_a_model_the_pools_own_is_taken() -> None:
    assert Target(eps=0.5).for_vectors_of(MAKER) == Target("models/small", "mean", 6, 256, eps=0.5)
    assert Target(layer=6).for_vectors_of(MAKER).layer == 6


def test_a_model_that_is_named_stays() -> None:
    named = Target("models/large", layer=3)
    assert named.for_vectors_of(MAKER) is named


@pytest.mark.parametrize(
    ("option", "says"), [({"pooling": "cls"}, "pooling cls"), ({"layer": 2}, "layer 2"), ({"max_tokens": 9}, "max_tok")]
)
def test_options_that_contradict_the_vectors_are_refused(option: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=f"{says}.*: the pool's embeddings were made with .*; drop the option"):
        EmbedderOptions(**option).for_vectors_of(MAKER)


def test_a_scorer_that_embeds_no_text_stays_as_it_is() -> None:
    scorer = DSIR()
    assert scorer.for_vectors_of(MAKER) is scorer
