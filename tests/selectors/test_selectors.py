from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dvsel.budget import Budget
from dvsel.errors import UserError
from dvsel.selectors import Selector
from dvsel.selectors.random import Random
from dvsel.selectors.resample import Resample
from dvsel.selectors.threshold import Threshold
from dvsel.selectors.topk import TopK

ALL = [
    TopK(),
    TopK(lowest=True),
    Random(),
    Resample(),
    Resample(temperature=0.01),
    Threshold(min_score=0.2),
    Threshold(quantile=0.9),
]
SCORES = np.array([0.5, np.nan, -np.inf, 0.2, np.inf, -3.0, 3e38, -3e38], np.float32)


def uniforms(rows: int, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(1e-16, 1, rows)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("selector", ALL, ids=repr)
def test_a_key_a_document_and_none_without_a_score(selector: Selector) -> None:
    scores, noise = SCORES.copy(), uniforms(len(SCORES))
    keys = selector.key(scores, noise)
    assert keys.dtype == np.float32 and keys.shape == scores.shape
    assert np.isnan(keys[1]) and not np.isnan(keys[0])
    assert np.array_equal(scores, SCORES, equal_nan=True)
    assert selector.key(scores[:0], noise[:0]).shape == (0,)


@pytest.mark.parametrize("selector", ALL, ids=repr)
def test_a_key_depends_on_its_document_alone(selector: Selector) -> None:
    noise = uniforms(len(SCORES))
    one_by_one = [selector.key(SCORES[at : at + 1], noise[at : at + 1])[0] for at in range(len(SCORES))]
    assert np.array_equal(selector.key(SCORES, noise), np.array(one_by_one), equal_nan=True)


@pytest.mark.parametrize("selector", ALL, ids=repr)
def test_only_noisy_rules_use_noise(selector: Selector) -> None:
    first, second = (selector.key(SCORES, uniforms(len(SCORES), seed)) for seed in (1, 2))
    assert np.array_equal(first, second, equal_nan=True) is not selector.noisy


def test_topk_keeps_the_highest_or_the_lowest() -> None:
    scores = np.array([0.2, -1.0, np.nan, 0.3], np.float32)
    assert np.argsort(TopK().key(scores, uniforms(4))).tolist() == [1, 0, 3, 2]  # NaN is sorted last
    assert np.argsort(TopK(lowest=True).key(scores, uniforms(4))).tolist() == [3, 0, 1, 2]


@pytest.mark.parametrize("selector", ALL, ids=repr)
def test_a_key_without_noise_tells_its_score(selector: Selector) -> None:
    keys = selector.key(SCORES, uniforms(len(SCORES)))
    told = [selector.score_of(float(key)) for key in keys[~np.isnan(keys)]]
    expected = [None] * len(told) if selector.noisy else SCORES[~np.isnan(keys)].tolist()
    assert told == expected


def test_random_ignores_the_scores() -> None:
    noise = uniforms(100)
    order = np.argsort(Random().key(np.linspace(0, 1, 100, dtype=np.float32), noise))
    assert np.array_equal(order, np.argsort(noise))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_resample_draws_in_proportion(temperature: float) -> None:
    """The first document of a sample without replacement is drawn with softmax probability."""
    scores = np.array([0.0, 1.0, 2.0, -1.0], np.float32)
    draws = 40_000
    keys = Resample(temperature).key(np.tile(scores, draws), uniforms(4 * draws)).reshape(draws, 4)
    share = np.bincount(keys.argmax(axis=1), minlength=4) / draws
    weight = np.exp(scores / temperature)
    assert share == pytest.approx(weight / weight.sum(), abs=0.01)


def test_resample_is_gumbel_top_k_as_in_dsir() -> None:
    scores, noise = np.array([-700.5, 3.25], np.float32), np.array([0.25, 0.75])
    expected = scores.astype(np.float64) / 2 - np.log(-np.log(noise))
    assert Resample(temperature=2.0).key(scores, noise) == pytest.approx(expected, rel=1e-7)


def test_threshold_keeps_scores_from_the_bound_on() -> None:
    scores = np.array([0.1, 0.2, 0.3], np.float32)
    assert np.isnan(Threshold(min_score=0.2).key(scores, uniforms(3))).tolist() == [True, False, False]
    assert Threshold(min_score=0.2).budget is None


def test_a_quantile_is_a_budget_of_documents() -> None:
    assert Threshold(quantile=0.9).budget == Budget("docs", share=Fraction(1, 10))
    assert Threshold(quantile=0.0).budget == Budget("docs", share=Fraction(1))


@pytest.mark.parametrize(
    ("cls", "options", "says"),
    [
        (Threshold, {}, "threshold: needs one bound; give either min-score or quantile"),
        (Threshold, {"min_score": 1.0, "quantile": 0.5}, "threshold: needs one bound"),
        (Threshold, {"min_score": float("nan")}, "min_score nan: out of range"),
        (Threshold, {"quantile": 1.0}, "quantile 1.0: out of range; give at least 0 and below 1"),
        (Threshold, {"quantile": float("nan")}, "quantile nan: out of range"),
        (Resample, {"temperature": 0.0}, "temperature 0.0: out of range; give a number above 0"),
        (Resample, {"temperature": float("inf")}, "temperature inf: out of range"),
        (Resample, {"temperature": float("nan")}, "temperature nan: out of range"),
    ],
)
def test_impossible_options_are_refused(cls: type[Selector], options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refusal:
        cls(**options)
    assert says in str(refusal.value)


def test_only_a_bound_does_without_a_budget() -> None:
    assert [type(selector) for selector in ALL if not selector.needs_budget] == [Threshold, Threshold]
