"""PreSelect's options and report; its fit is in tests/test_preselect.py."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from dvsel.documents.columns import Batch
from dvsel.errors import UserError
from dvsel.fasttext.classifier import classify
from dvsel.fasttext.examples import LABELS
from dvsel.fasttext.training import learn
from dvsel.interface.registry import scorer_class
from dvsel.options import from_mapping, to_mapping
from dvsel.scorers.preselect import FittedPreSelect, PreSelect

SCORER = PreSelect(ladder="ladder.yaml", dim=4, buckets=100)


def fitted(scorer: PreSelect, **report: Any) -> FittedPreSelect:
    """Tells documents about cats from those about dogs."""
    cats, dogs = ([f"{name} number {number}" for number in range(60)] for name in ("cat", "dog"))
    model, learned = learn([Batch.of(cats)], [Batch.of(dogs)], scorer, scorer.preprocess)
    made = FittedPreSelect(scorer, classify(scorer, model, LABELS[0], "space", scorer.probability).arrays)
    made.report = {**learned, **report}
    return made


def test_the_defaults_are_the_papers() -> None:
    assert (SCORER.epochs, SCORER.word_ngrams, SCORER.learning_rate, SCORER.preprocess) == (3, 2, 0.1, "space")
    assert (SCORER.strength, SCORER.share_of_positives, SCORER.share_of_negatives) == ("pairs", None, None)
    assert SCORER.takes_pool and not SCORER.takes_target and SCORER.selector == "topk"
    assert scorer_class("preselect") is PreSelect


def test_options_survive_a_recipe() -> None:
    scorer = PreSelect(ladder="l", positive_share="10%", strength="spearman", window=512, precision="bf16", dim=3)
    assert from_mapping(PreSelect, to_mapping(scorer), "recipe") == scorer


def test_shares_are_of_documents() -> None:
    scorer = PreSelect(ladder="ladder.yaml", positive_share="12.5%", negative_share="20% docs")
    assert (scorer.share_of_positives, scorer.share_of_negatives) == (Fraction(1, 8), Fraction(1, 5))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ladder": ""}, "no ladder; name the file"),
        ({"positive_share": "many"}, "--positive-share: 'many' is not a budget"),
        ({"negative_share": "500 docs"}, "--negative-share: '500 docs' is not a share"),
        ({"positive_share": "0%"}, "--positive-share"),
        ({"positive_share": "60%", "negative_share": "41%"}, "together are more than the sample"),
        ({"epochs": 0}, "epochs 0: out of range"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refusal:
        PreSelect(**{"ladder": "ladder.yaml", **options})
    assert says in str(refusal.value)


def test_it_is_fitted_in_steps_alone() -> None:
    with pytest.raises(NotImplementedError):
        SCORER.fit([], {})


@pytest.mark.filterwarnings("ignore:training")
def test_scores_are_those_of_the_classifier() -> None:
    batch = Batch.of(["cat number 7", "dog\nnumber 7"])
    logits = fitted(SCORER).score(batch)
    assert logits[0] > logits[1]
    probability = fitted(PreSelect(ladder="l", dim=4, buckets=100, probability=True)).score(batch)
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-logits)) + 1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:training")
def test_the_report_in_words() -> None:
    agreement = {"documents": 1200, "spearman": 0.5, "mean_strength": 0.4, "mean_strength_of_top_tenth": 0.75}
    made = fitted(
        SCORER,
        ladder=[{"name": "small", "score": 0.25, "bits_per_char": 1.5}],
        strength={"strength": "pairs", "documents": [1, 2], "in_order": 2, "pairs": 15, "tied": 0},
        labelled={"positive": 2000, "negative": 1999},
        ranking={"held_out": agreement, "unlabelled": {"documents": 3}},
    )
    lines = made.lines()
    assert lines[0] == "ladder, score and bits a character: small 0.25 (1.500)"
    assert "2 have all 15 pairs in order, 0 have equal losses in some pair" in lines[1]
    assert lines[2] == "labelled 2,000 documents positive, 1,999 negative"
    assert "  1,200 documents, held out: 0.500; mean strength 0.400, of the best tenth 0.750" in lines
    assert lines[-1] == "  3 documents, unlabelled"
    assert any(line.startswith("precision") for line in lines)
