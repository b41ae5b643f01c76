"""A distilled scorer: the mean of its weights over a document's n-grams, under its teacher's name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dvsel.documents.columns import Batch
from dvsel.documents.vectors import Maker, Vectors
from dvsel.errors import UserError
from dvsel.ngrams.spec import buckets_of
from dvsel.runs import fitted_files as storage
from dvsel.scorers.distilled import Distilled, FittedDistilled

SCORER = Distilled(teacher="slow model=m", ngrams=2, buckets=50)
MAKER = Maker("models/small", "ab12", "mean", 6, 256)
TEXTS = ["The cat sat on the mat.", "A dog!", "", " \n", "cat", "\U0001f642 caf\u00e9 " * 50]


def made(
    groups: tuple[str, ...] = ("",),
    correlations: tuple[float, ...] = (0.5,),
    learned: tuple[str, ...] = ("weights",),
    maker: Maker | None = None,
) -> FittedDistilled:
    """learned: the arrays that it has. maker: of the embeddings that it could learn from."""
    draw = np.random.default_rng(0)
    weights: dict[str, Any] = {
        "weights": draw.normal(size=(len(groups), SCORER.buckets)).astype(np.float32),
        "vectors": draw.normal(size=(len(groups), 3)),
    }
    fitted = FittedDistilled(
        MAKER.chosen_in(SCORER) if "vectors" in learned else SCORER,
        {name: weights[name] for name in learned}
        | {
            "intercepts": draw.normal(size=len(groups)),
            "shares": np.full(len(groups), 1 / len(groups)),
            "groups": np.frombuffer(json.dumps(groups).encode(), np.uint8),
        },
    )
    teacher: dict[str, Any] = {"scorer": "slow", "options": {}, "selector": "resample", "fingerprint": "f"}
    teacher |= {"documents": 1200, "bytes": 4_000_000, "unscored": 3}
    found = {"embeddings": 0.1 if maker else 0.0, "penalty": 0.1, "trained": 960, "held_out": 240, "top_tenth": 0.625}
    fitted.report = {
        "teacher": teacher,
        "groups": [{"name": name, "spearman": one, **found} for name, one in zip(groups, correlations, strict=True)],
    }
    if maker:
        fitted.report["embedder"] = dataclasses.asdict(maker)
    return fitted


def embedded(maker: Maker = MAKER) -> Batch:
    """The texts with vectors; the second has none."""
    values = np.random.default_rng(1).normal(size=(len(TEXTS), 3)).astype(np.float16)
    values[1] = np.nan
    return dataclasses.replace(Batch.of(TEXTS), vectors=Vectors(values, maker))


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


@pytest.mark.parametrize("groups", [("",), ("code", "maths")])
@pytest.mark.parametrize("learned", [("vectors",), ("weights", "vectors")], ids=["alone", "beside n-grams"])
def test_a_vectors_product_with_weights_is_added(
    learned: tuple[str, ...], groups: tuple[str, ...], tmp_path: Path
) -> None:
    fitted = made(groups, (0.5,) * len(groups), learned, MAKER)
    storage.save(fitted, str(tmp_path / "x.fitted"))
    loaded = storage.load(str(tmp_path / "x.fitted"))[0]
    scores, batch = loaded.score(embedded()).reshape(len(TEXTS), len(groups)), embedded()
    assert batch.vectors is not None
    for text, vector, row in zip(TEXTS, batch.vectors.values.astype(np.float64), scores, strict=True):
        found = buckets_of(text, SCORER.spec)
        expected = fitted.arrays["vectors"] @ vector + fitted.arrays["intercepts"]
        if "weights" in learned:
            expected += fitted.arrays["weights"][:, found].mean(1) if found else np.nan
        np.testing.assert_allclose(row, expected, rtol=1e-5)
    assert np.isnan(scores[1]).all() and np.isfinite(scores[0]).all()
    assert loaded.score(Batch.of([])).shape == ((0,) if len(groups) == 1 else (0, 2))


def test_vectors_that_were_made_in_another_way_are_refused() -> None:
    fitted = made(learned=("vectors",), maker=MAKER)
    with pytest.raises(UserError, match="layer 6 and 2"):
        fitted.score(embedded(dataclasses.replace(MAKER, layer=2)))


def test_it_says_why_a_document_has_no_score() -> None:
    assert made().unscored == "no words"
    assert made(learned=("vectors",), maker=MAKER).unscored == "no text to embed"
    assert made(learned=("weights", "vectors"), maker=MAKER).unscored == "no words, or no text to embed"


def test_one_process_where_a_model_embeds() -> None:
    assert SCORER.processes_for(embedded=False) == 0
    embedding = dataclasses.replace(SCORER, model="models/small")
    assert embedding.processes_for(embedded=False) >= 1
    assert embedding.processes_for(embedded=True) == 0


def test_it_goes_by_its_teachers_name(tmp_path: Path) -> None:
    fitted, place = made(), str(tmp_path / "x.fitted")
    storage.save(fitted, place)
    assert (fitted.selector, fitted.teacher_name) == ("resample", "slow")
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


def test_lines_tell_what_embeddings_count() -> None:
    lines = made(learned=("weights", "vectors"), maker=MAKER).lines()
    assert lines[2] == "learned from embeddings by models/small, mean of layer 6"
    assert "fitted on 960 (features: 10% embeddings, the rest n-grams); 62% of" in lines[-1]
    lines = made(maker=MAKER).lines()
    assert lines[2] == "not used, as n-grams alone rank about as well: embeddings by models/small, mean of layer 6"


def test_options_are_checked() -> None:
    with pytest.raises(UserError, match=r"no teacher; name a fitted scorer with --teacher FILE, or .* --distil"):
        Distilled()
    with pytest.raises(UserError, match="buckets 0: out of range"):
        Distilled(teacher="t.fitted", buckets=0)
