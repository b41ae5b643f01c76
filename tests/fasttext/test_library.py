"""Prediction through the package: what it gives, in the columns that were asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from dvsel.documents.columns import Column
from dvsel.errors import UserError
from dvsel.fasttext.library import Library
from fasttext_models import ODD_TEXTS, predict, quantise, train

TEXTS = {f"l{n % 5}": [f"common word{n} w{n % 5} слово"] * 10 for n in range(500)}


@pytest.mark.parametrize("loss", ["hs", "softmax", "ova"])
def test_probabilities_of_all_labels(tmp_path: Path, loss: str) -> None:
    path = train(tmp_path / "model.bin", TEXTS, loss=loss, wordNgrams=2, bucket=1000)
    path = path if loss == "hs" else quantise(path)
    labels = ("l3", "l0", "l1", "l2", "l4")
    found = Library(np.frombuffer(path.read_bytes(), np.uint8), labels).probabilities(Column.of(ODD_TEXTS))
    by_label = predict(path, ODD_TEXTS)
    expected = np.stack([by_label[label] for label in labels], axis=1)
    left_out = np.isnan(expected)  # by hierarchical softmax, what is below 1e-5
    assert np.array_equal(found[~left_out], expected[~left_out])
    assert (found[left_out] < 1e-5).all() and (loss == "hs" or not left_out.any())


def test_no_feature_is_no_probability(tmp_path: Path) -> None:
    path = train(tmp_path / "model.bin", TEXTS, loss="hs", minCount=10_000)
    found = Library(np.frombuffer(path.read_bytes(), np.uint8), ("l0", "l1", "l2", "l3", "l4"))
    assert np.isnan(found.probabilities(Column.of([b"unknown"]))).all()


def test_what_is_no_model_does_not_reach_the_package() -> None:
    pytest.importorskip("fasttext", reason="fasttext is not installed")
    with pytest.raises(UserError, match="the fastText model: no fastText model"):
        Library(np.frombuffer(b"no model at all", np.uint8), ("1", "0"))


def test_labels_are_those_of_the_model(tmp_path: Path) -> None:
    path = train(tmp_path / "model.bin", TEXTS, loss="hs")
    with pytest.raises(UserError, match="its labels are not those that it was fitted with"):
        Library(np.frombuffer(path.read_bytes(), np.uint8), ("l3", "l0", "l1", "l2", "other"))


def test_labels_without_the_usual_prefix(tmp_path: Path) -> None:
    """As of `fasttext supervised -label __class__`: the file does not say which prefix it was."""
    path = train(tmp_path / "model.bin", TEXTS, loss="hs")
    path.write_bytes(path.read_bytes().replace(b"__label__", b"__class__"))
    labels = tuple(f"__class__l{number}" for number in range(5))
    found = Library(np.frombuffer(path.read_bytes(), np.uint8), labels).probabilities(Column.of([b"common w1"]))
    assert found.shape == (1, 5) and abs(np.nansum(found) - 1) < 1e-3


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fasttext", None)
    with pytest.raises(UserError, match=r"pip install 'dvsel\[fasttext\]'"):
        Library(np.zeros(4, np.uint8), ("1", "0"))
