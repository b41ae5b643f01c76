"""Numbers on a classifier, against their definitions said in another way."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvsel.fasttext.evaluation import FINDINGS, above_chance, evaluate, lines

LOGITS = np.array([3.0, 1.0, 0.0, -1.0, -2.0, -4.0], np.float32)
TRUTH = np.array([True, False, True, True, False, False])


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_a_small_case_by_hand() -> None:
    report = evaluate(LOGITS, TRUTH)

    assert (report["documents"], report["positives"], report["unscored"]) == (6, 3, 0)
    assert report["precision"] == pytest.approx(2 / 3)  # 3, 1 and 0 count as positive
    assert report["recall"] == pytest.approx(2 / 3)
    assert report["f1"] == pytest.approx(2 / 3)
    assert report["accuracy"] == pytest.approx(4 / 6)
    assert tuple(report) == FINDINGS
    assert report["area"] == pytest.approx(7 / 9)  # of 9 pairs, those of 1 with 0 and with -1 are wrong


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), max_size=40))
def test_numbers_follow_their_definitions(documents: list[tuple[int, bool]]) -> None:
    logits = np.array([score for score, _ in documents], np.float64)
    truth = np.array([positive for _, positive in documents], bool)
    report = evaluate(logits, truth)

    pairs = [(a > b) + (a == b) / 2 for (a, x), (b, y) in itertools.product(documents, repeat=2) if x and not y]
    assert report["area"] == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)
    losses = [math.log(1 + math.exp(-score if positive else score)) for score, positive in documents]
    assert report["log_loss"] == (pytest.approx(sum(losses) / len(losses)) if losses else None)
    right = sum(score >= 0 and positive for score, positive in documents)
    chosen = sum(score >= 0 for score, _ in documents)
    assert report["precision"] == (pytest.approx(right / chosen) if chosen else None)
    assert report["recall"] == (pytest.approx(right / truth.sum()) if truth.any() else None)
    json.dumps(report, allow_nan=False)


@given(st.lists(st.tuples(st.floats(0.001, 0.999), st.booleans()), min_size=1, max_size=60))
def test_calibration_follows_its_definition(documents: list[tuple[float, bool]]) -> None:
    report = evaluate(np.array([logit(p) for p, _ in documents]), np.array([positive for _, positive in documents]))
    recovered = [1 / (1 + math.exp(-logit(p))) for p, _ in documents]

    error = 0.0
    for number, one in enumerate(report["calibration"]):
        inside = [(p, positive) for p, (_, positive) in zip(recovered, documents, strict=True) if int(p * 10) == number]
        assert (one["from"], one["to"], one["documents"]) == (number / 10, (number + 1) / 10, len(inside))
        if not inside:
            assert one["mean_probability"] is one["share_positive"] is None
            continue
        mean, share = (sum(values) / len(inside) for values in zip(*inside, strict=True))
        assert one["mean_probability"] == pytest.approx(mean)
        assert one["share_positive"] == pytest.approx(share)
        error += abs(mean - share) * len(inside)
    assert report["calibration_error"] == pytest.approx(error / len(documents), abs=1e-12)


def test_a_document_without_a_score_is_counted_and_left_out() -> None:
    with_gaps = evaluate(np.append(LOGITS, [np.nan, np.nan]), np.append(TRUTH, [True, False]))

    assert with_gaps == evaluate(LOGITS, TRUTH) | {"unscored": 2}


def test_certain_answers_stay_finite() -> None:
    report = evaluate(np.array([1e4, -1e4, np.inf]), np.array([True, False, True]))

    assert (report["log_loss"], report["calibration_error"], report["area"]) == (0, 0, 1)
    assert report["calibration"][9]["documents"] == 2


def test_a_calibrated_classifier_has_a_small_error_and_an_overconfident_one_a_large() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, 20_000)
    truth = generator.random(20_000) < 1 / (1 + np.exp(-logits))

    assert evaluate(logits, truth)["calibration_error"] < 0.02
    assert evaluate(5 * logits, truth)["calibration_error"] > 0.1


def test_above_chance_takes_more_than_luck() -> None:
    generator = np.random.default_rng(0)
    lucky = [above_chance(evaluate(generator.normal(size=60), np.arange(60) < 20)) for _ in range(400)]

    assert 0.005 < np.mean(lucky) < 0.05  # the tail beyond two standard errors is 2.3%
    assert above_chance(evaluate(LOGITS.repeat(20), TRUTH.repeat(20)))
    assert not above_chance(evaluate(LOGITS, np.ones(6, bool)))


def test_the_report_in_lines() -> None:
    generator = np.random.default_rng(0)
    logits = np.append(generator.normal(-0.5, 2, 5000), np.nan)
    shown = lines(evaluate(logits, generator.random(5001) < 1 / (1 + np.exp(-logits))))

    assert shown[0].startswith("held out 5,000 documents, ")
    assert shown[1] == "no score for 1 more"
    assert shown[2].startswith("precision 0.")
    assert shown[3].startswith("area under the ROC 0.8")
    assert all(len(line) <= 80 for line in shown)
    bars = [line for line in shown if "█" in line and " to " in line]
    assert len(bars) == 10
    assert bars[0].count("█") < bars[4].count("█") < bars[9].count("█")
    assert all(line.count("│") == 1 for line in bars)


def test_empty_bins_and_undefined_numbers_are_shown_as_such() -> None:
    shown = lines(evaluate(np.array([-5.0, -6.0]), np.array([False, False])))

    assert "precision n/a, recall n/a, f1 n/a, accuracy 1.000" in shown
    assert sum("n/a" in line for line in shown) == 2 + 9
    assert lines(evaluate(np.empty(0), np.empty(0, bool))) == ["held out 0 documents, 0 of them positive"]
