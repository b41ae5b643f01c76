"""DSIR against the package of its authors, which is made to use dvsel's hash."""

from __future__ import annotations

import inspect
import json
import pydoc
import pydoc_data.topics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dvsel.documents.columns import Batch
from dvsel.errors import Notice, UserError
from dvsel.ngrams.spec import bucket_of
from dvsel.scorers.dsir import DSIR, FittedDSIR
from dvsel.testing import check_scorer

TOPICS = list(pydoc_data.topics.topics.values())
TARGET, OTHER_TARGET = TOPICS[0:40:4], TOPICS[1:20:4]
POOL = [*TOPICS[2::4], inspect.getsource(pydoc), "Grüße aus Köln – “naïve” ΟΔΟΣ", "short", ""]


def batches(texts: list[str], size: int = 7) -> Iterator[Batch]:
    for first in range(0, len(texts), size):
        yield Batch.of(texts[first : first + size])


def fit(scorer: DSIR, **targets: list[str]) -> FittedDSIR:
    return scorer.fit(batches(POOL), {name: batches(texts) for name, texts in targets.items()})


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Makes the package's fitted object from the same texts, on dvsel's hash."""
    package = pytest.importorskip("data_selection.hashed_ngram_dsir", reason="data-selection is not installed")
    monkeypatch.setattr(package, "hash_buckets", lambda ngram, num_buckets: bucket_of(ngram.split(" "), num_buckets))

    def make(*targets: list[str], **options: Any) -> Any:
        files = []
        for number, texts in enumerate([POOL, *targets]):
            files.append(tmp_path / f"{number}.jsonl")
            files[-1].write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        paths = [str(file) for file in files]
        dsir = package.HashedNgramDSIR(paths[:1], paths[1:], str(tmp_path / "cache"), num_proc=1, **options)
        dsir.fit_importance_estimator(num_tokens_to_fit="all")
        return dsir

    return make


def check_against(reference: Any, fitted: FittedDSIR) -> None:
    np.testing.assert_allclose(fitted.arrays["log_ratio"], np.atleast_2d(reference.log_diff), rtol=1e-6, atol=1e-6)
    features = [reference.featurizer(text) for text in POOL]
    lengths = np.array([reference.get_perexample_metadata({}, feature) for feature in features])
    kept = reference.perexample_metadata_filter(lengths)
    scores = fitted.score(Batch.of(POOL))
    assert np.array_equal(kept, ~np.isnan(scores.reshape(len(POOL), -1)[:, 0]))
    expected = np.array([reference.importance_estimator(feature) for feature in features])
    np.testing.assert_allclose(scores[kept], expected[kept], rtol=1e-6)
    assert 0 < kept.sum() < len(POOL)


@pytest.mark.parametrize(("ngrams", "buckets"), [(1, 10_000), (2, 10_000), (3, 500)])
def test_weights_are_those_of_the_reference(reference: Callable[..., Any], ngrams: int, buckets: int) -> None:
    expected = reference(TARGET, ngrams=ngrams, num_buckets=buckets)
    check_against(expected, fit(DSIR(ngrams=ngrams, buckets=buckets, min_words=100), target=TARGET))


def test_joined_targets_are_those_of_the_reference(reference: Callable[..., Any]) -> None:
    check_against(reference(TARGET, OTHER_TARGET), fit(DSIR(min_words=100), a=TARGET, b=OTHER_TARGET))


@pytest.mark.parametrize("proportions", ["", "3,1"])
def test_separate_targets_are_those_of_the_reference(reference: Callable[..., Any], proportions: str) -> None:
    weights = [float(part) for part in proportions.split(",")] if proportions else None
    expected = reference(TARGET, OTHER_TARGET, separate_targets=True, target_proportions=weights)
    fitted = fit(DSIR(min_words=100, separate_targets=True, target_proportions=proportions), a=TARGET, b=OTHER_TARGET)
    check_against(expected, fitted)
    assert fitted.groups == ("a", "b")
    assert fitted.shares == pytest.approx(expected.target_proportions)


def test_joined_targets_take_given_weights() -> None:
    both = fit(DSIR(target_proportions="3, 1", smoothing=1e-3), a=TARGET, b=OTHER_TARGET)
    alone = [fit(DSIR(smoothing=1e-3), a=texts).arrays["log_ratio"][0] for texts in (TARGET, OTHER_TARGET)]
    np.testing.assert_allclose(  # with p the pool's share: exp(log_ratio) = (target + s) / (p + s), linear in target
        np.exp(both.arrays["log_ratio"][0]), 0.75 * np.exp(alone[0]) + 0.25 * np.exp(alone[1]), rtol=1e-5
    )


def test_a_scorer_as_any_other() -> None:
    check_scorer(DSIR(), POOL, TARGET)
    check_scorer(DSIR(separate_targets=True, normalise="length", ngrams=3, words="whitespace"), POOL, TARGET)


def test_length_normalisation_is_the_mean_over_ngrams() -> None:
    text = " ".join(["word"] * 200)
    total = fit(DSIR(), target=TARGET).score(Batch.of([text]))
    mean = fit(DSIR(normalise="length"), target=TARGET).score(Batch.of([text]))
    assert mean[0] == pytest.approx(total[0] / (200 + 199), rel=1e-6)


def test_documents_like_the_target_score_higher() -> None:
    fitted = fit(DSIR(normalise="length"), target=TARGET)
    like, unlike = fitted.score(Batch.of([max(TARGET, key=len), "Lorem ipsum dolor sit amet " * 40]))
    assert like > unlike


@pytest.mark.parametrize(
    ("min_words", "scored"), [(100, [False, False, False]), (3, [False, False, True]), (0, [False, True, True])]
)
def test_short_documents_have_no_score(min_words: int, scored: list[bool]) -> None:
    fitted = fit(DSIR(min_words=min_words), target=TARGET)
    assert np.isfinite(fitted.score(Batch.of([" ", "one", "one, two"]))).tolist() == scored
    assert fitted.unscored == ("no words" if min_words == 0 else f"fewer than {min_words} words (--min-words)")


def of_words(*lengths: int) -> list[str]:
    return [" ".join(["word"] * length) for length in lengths]


@pytest.mark.parametrize(
    ("targets", "bound"),
    [
        ([of_words(*[120] * 95, *[10] * 5)], 100),  # 5% are shorter, which the bound may leave out
        ([of_words(*[120] * 94, *[10] * 6)], 10),
        ([of_words(*range(1, 101))], 6),  # of 100 documents 5 have fewer words
        ([of_words(200, 300), of_words(40, 50)], 40),  # no target loses more
        ([["", "", "one"]], 0),
    ],
)
def test_the_bound_suits_the_targets(targets: list[list[str]], bound: int) -> None:
    named = {str(number): texts for number, texts in enumerate(targets)}
    if bound == 100:
        fitted = fit(DSIR(), **named)
    else:
        with pytest.warns(Notice, match=f"fewer than 100 words: the bound is {bound}; --min-words sets it"):
            fitted = fit(DSIR(), **named)
    assert fitted.arrays["min_words"].tolist() == [bound]


def test_a_given_bound_stays_and_is_warned_of() -> None:
    with pytest.warns(Notice, match="75% of the target's documents have fewer than 50 words: these count as too short"):
        fitted = fit(DSIR(min_words=50), target=of_words(10, 20, 30, 60))
    assert fitted.arrays["min_words"].tolist() == [50]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"ngrams": 9}, "ngrams 9: out of range"),
        ({"buckets": 0}, "buckets 0: out of range"),
        ({"words": "bytes"}, "words 'bytes': unknown"),
        ({"normalise": "sqrt"}, "normalise 'sqrt': unknown"),
        ({"smoothing": 0.0}, "smoothing 0.0: out of range"),
        ({"min_words": -1}, "min_words -1: out of range"),
        ({"target_proportions": "0.7;0.3"}, "not a list of numbers"),
        ({"target_proportions": "1,-1"}, "negative"),
        ({"target_proportions": "0,0"}, "all are 0"),
        ({"target_proportions": "nan,1"}, "negative"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        DSIR(**options)


def test_unusable_samples_are_refused() -> None:
    with pytest.raises(UserError, match="no target"):
        fit(DSIR())
    with pytest.raises(UserError, match="target b: holds no word"):
        fit(DSIR(), a=TARGET, b=["", " \n"])
    with pytest.raises(UserError, match="the pool's sample: holds no word"):
        DSIR().fit([], {"a": batches(TARGET)})
    with pytest.raises(UserError, match=r"3 numbers for 2 targets \(a, b\)"):
        fit(DSIR(target_proportions="1,1,1"), a=TARGET, b=TARGET)
