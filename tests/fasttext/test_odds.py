"""Log-odds and the library's probabilities against direct formulas and the library's own arithmetic, step by step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvsel.fasttext import odds

OUTPUTS = st.lists(st.lists(st.floats(-700, 700), min_size=4, max_size=4), min_size=1, max_size=5)
CHOSEN = st.sampled_from([[True, False, False, False], [False, True, True, False], [True, True, False, True]])


def library_sigmoid(x: float) -> float:
    """`Loss::sigmoid` of fastText, in its types."""
    single = np.float32(x)
    if single < -8:
        return 0.0
    if single > 8:
        return 1.0
    place = int((single + np.float32(8)) * np.float32(512) / np.float32(8) / np.float32(2))
    entry = np.float32(place * 16) / np.float32(512) - np.float32(8)
    return float(np.float32(1.0 / (1.0 + float(np.exp(-entry)))))


@given(OUTPUTS, CHOSEN)
def test_softmax_logit(rows: list[list[float]], chosen: list[bool]) -> None:
    outputs, flags = np.array(rows), np.array(chosen)
    wide = outputs.astype(np.longdouble)
    expected = np.log(np.exp(wide[:, flags]).sum(axis=1)) - np.log(np.exp(wide[:, ~flags]).sum(axis=1))
    np.testing.assert_allclose(odds.softmax_logit(outputs, flags), expected.astype(float), rtol=1e-12, atol=1e-12)


@given(OUTPUTS)
def test_odds_that_any_label_holds(rows: list[list[float]]) -> None:
    outputs = np.array(rows)
    total = np.log1p(np.exp(outputs.astype(np.longdouble))).sum(axis=1)
    expected = total + np.log(-np.expm1(-total))
    np.testing.assert_allclose(odds.any_logit(outputs), expected.astype(float), rtol=1e-9, atol=1e-9)


def test_one_label_is_its_own_logit() -> None:
    assert odds.any_logit(np.array([[-900.0], [3.5], [900.0]])).tolist() == [-900.0, 3.5, 900.0]


def test_no_feature_is_no_score() -> None:
    nothing, flags = np.full((1, 3), np.nan), np.array([True, False, False])
    for scores in (
        odds.softmax_logit(nothing, flags),
        odds.any_logit(nothing),
        odds.softmax_probability(nothing[:, 0]),
        odds.any_probability(nothing),
        odds.reported_logit(nothing, flags, "softmax"),
        odds.reported_logit(nothing, flags, "ova"),
        odds.reported_probability(nothing, flags, "ova"),
    ):
        assert np.isnan(scores).all()


@given(st.lists(st.floats(-10, 10, width=32), min_size=1))
def test_one_vs_all_takes_the_librarys_table(outputs: list[float]) -> None:
    expected = [library_sigmoid(x) + 1e-5 for x in outputs]
    assert odds.any_probability(np.array(outputs)[:, None]).tolist() == pytest.approx(expected, abs=1e-12)


def test_every_edge_of_the_table() -> None:
    edges = np.arange(513) / 32 - 8
    around = np.concatenate([edges, np.nextafter(np.float32(edges), np.float32(9)), [-8.0001, 8.0001]])
    expected = [library_sigmoid(x) + 1e-5 for x in around]
    assert odds.any_probability(around[:, None]).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("chosen", [[True, False], [False, True]])
def test_softmax_logits_come_back_from_reported_probabilities(chosen: list[bool]) -> None:
    flags = np.array(chosen)
    difference = np.linspace(-40, 40, 4001)
    outputs = np.stack([difference, np.zeros_like(difference)], axis=1)
    shares = np.exp(outputs - np.logaddexp.reduce(outputs, axis=1)[:, None]).astype(np.float32)
    reported = np.exp(np.log(shares + 1e-5).astype(np.float32)).astype(float)  # as the library rounds them
    found = odds.reported_logit(reported, flags, "softmax")
    near = np.abs(difference) < 18
    np.testing.assert_allclose(found[near], odds.softmax_logit(outputs, flags)[near], atol=1e-3)
    assert np.abs(found).max() < 25.4


@given(st.lists(st.floats(-9, 9, width=32), min_size=2, max_size=2))
def test_one_vs_all_logits_come_back_in_the_tables_steps(outputs: list[float]) -> None:
    values = np.float32([library_sigmoid(x) + 1e-5 for x in outputs]).astype(float)[None, :]  # type: ignore[arg-type]
    found = odds.reported_logit(values, np.array([True, False]), "ova")
    step = np.floor((np.float32(outputs[0]) + np.float32(8)) * 32) / 32 - 8
    expected = 8 + 1 / 32 if outputs[0] > 8 else max(step, -8 - 1 / 32)
    assert found == pytest.approx(expected, abs=1e-12)


def test_several_labels_together() -> None:
    reported, flags = np.array([[0.2, 0.3, 0.5]]) + 1e-5, np.array([True, True, False])
    assert odds.reported_probability(reported, flags, "softmax") == pytest.approx(0.5 + 1e-5)
    assert odds.reported_probability(reported, flags, "ova") == pytest.approx(1 - 0.8 * 0.7 + 1e-5)
    assert odds.reported_probability(reported, np.array([True, False, False]), "ova") == pytest.approx(0.2 + 1e-5)
