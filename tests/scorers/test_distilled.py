"""A distilled scorer: the mean of its weights over a document's n-grams, under its teacher's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dvsel import fitted as storage
from dvsel.errors import UserError
from dvsel.ngrams.spec import buckets_of
from dvsel.scorers.distilled import Distilled, FittedDistilled
from dvsel.shards.columns import Batch

SCORER = Distilled(teacher="slow model=m", ngrams=2, buckets=50)
TEXTS = ["The cat sat on the mat.", "A dog!", "", " \n", "cat", "\U0001f642 caf\u00e9 " * 50]


def made(groups: tuple[str, ...] = ("",), correlations: tuple[float, ...] = (0.5,)) -> FittedDistilled:
    draw = np.random.default_rng(0)
    fitted = FittedDistilled(
        SCORER,
        {
            "weights": draw.normal(size=(len(groups), SCORER.buckets)).astype(np.float32),
            "intercepts": draw.normal(size=len(groups)),
            "shares": np.full(len(groups), 1 / len(groups)),
            "groups": np.frombuffer(json.dumps(groups).encode(), np.uint8),
        },
    )
    teacher: dict[str, Any] = {"scorer": "slow", "options": {}, "selector": "resample", "fingerprint": "f"}
    teacher |= {"documents": 1200, "bytes": 4_000_000, "unscored": 3}
    found = {"penalty": 0.1, "trained": 960, "held_out": 240, "top_tenth": 0.625}
    fitted.report = {
        "teacher": teacher,
        "groups": [{"name": name, "spearman": one, **found} for name, one in zip(groups, correlations, strict=True)],
    }
    return fitted


@pytest.mark.parametrize("groups", [("",), ("code", "maths")])
def test_the_score_is_the_mean_of_weights_and_an_intercept(groups: tuple[str, ...]) -> None:
    fitted = made(groups, (0.5,) * len(groups))
    scores = fitted.score(Batch.of(TEXTS)).reshape(len(TEXTS), len(groups))
    for text, row in zip(TEXTS, scores, strict=True):
        found = buckets_of(text, SCORER.spec)
        if not found:
            assert np.isnan(row).all()
            continue
        mean = fitted.arrays["weights"][:, found].astype(np.float64).mean(1)
        np.testing.assert_allclose(row, mean + fitted.arrays["intercepts"], rtol=1e-6)
    assert scores.dtype == np.float32


def test_a_score_depends_on_its_document_alone() -> None:
    fitted = made()
    together = fitted.score(Batch.of(TEXTS * 3))
    alone = np.concatenate([fitted.score(Batch.of([text])) for text in TEXTS] * 3)
    np.testing.assert_array_equal(together, alone)


def test_it_goes_by_its_teachers_name(tmp_path: Path) -> None:
    fitted, place = made(), str(tmp_path / "x.fitted")
    storage.save(fitted, place)
    assert (fitted.selector, fitted.stands_for) == ("resample", "slow")
    for name in ("slow", "distilled"):
        assert storage.to_bytes(storage.load_of(name, place)) == storage.to_bytes(fitted)
    with pytest.raises(UserError, match="is a fitted distilled, not dsir"):
        storage.load_of("dsir", place)


def test_its_title_has_the_correlation() -> None:
    assert storage.title_of(made()) == "slow model=m, distilled (rank correlation 0.50)"
    groups = made(("code", "maths", "prose"), (0.71, 0.4, 0.5))
    assert storage.title_of(groups) == "slow model=m, distilled (rank correlation 0.40 to 0.71)"


def test_lines_tell_what_it_cost_and_how_well_it_ranks() -> None:
    assert made(("code", "maths"), (0.71, 0.4)).lines() == [
        "teacher: slow model=m",
        "it scored 1,200 documents of the pool, 4,000,000 bytes of text, and gave 3 others no score",
        "rank correlation with it (Spearman), on documents held out:",
        "  code: 0.710 on 240 documents, fitted on 960; 62% of the teacher's best tenth are in its own best tenth",
        "  maths: 0.400 on 240 documents, fitted on 960; 62% of the teacher's best tenth are in its own best tenth",
    ]


def test_options_are_checked() -> None:
    with pytest.raises(UserError, match=r"no teacher; name a fitted scorer with --teacher FILE, or .* --distil"):
        Distilled()
    with pytest.raises(UserError, match="buckets 0: out of range"):
        Distilled(teacher="t.fitted", buckets=0)
