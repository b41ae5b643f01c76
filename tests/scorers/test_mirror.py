"""The scorer `mirror`: fitted, saved and run, from batches and from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import corpus
import language_models
from commands import failure, ok
from dvsel.documents.columns import Batch, Column
from dvsel.errors import Notice, UserError
from dvsel.score_files.find import SUFFIX
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers.influence import Influence
from dvsel.scorers.mirror import FittedMirror, Mirror
from dvsel.testing import check_scorer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TEXTS = [text[:200] for text in language_models.TEXTS[:10]]
LONG = language_models.TEXTS[7][:900]


pytestmark = pytest.mark.usefixtures("one_thread")


TARGET = [text[:200] for text in language_models.TEXTS[20:24]]


def fit(model: str, **options: Any) -> FittedMirror:
    scorer = Mirror(model=model, **options)
    targets = {"a": [Batch.of(TARGET[:1])], "b": [Batch.of(TARGET[1:3]), Batch.of(TARGET[3:])]}
    return scorer.fit([Batch.of(TEXTS)] if scorer.takes_pool else [], targets)


def score(model: str, texts: list[str], **options: Any) -> npt.NDArray[np.float32]:
    return fit(model, **options).score(Batch.of(texts))


@pytest.mark.parametrize("options", [{"rank": 4}, {"preconditioner": "none", "target_steps": 2, "layers": "*.mlp.*"}])
def test_a_scorer_as_any_other(model: str, options: dict[str, Any]) -> None:
    check_scorer(Mirror(model=model, batch_tokens=3000, stride=64, **options), TEXTS, TARGET)


@pytest.mark.parametrize(
    "options", [{}, {"target_steps": 3}, {"reduction": "sum", "rank": 2, "preconditioner": "none"}]
)
def test_the_targets_documents_score_1_on_average(model: str, options: dict[str, Any]) -> None:
    assert score(model, TARGET, **options).mean() == pytest.approx(1, rel=1e-3)
    groups = score(model, TARGET, separate_targets=True, **options)
    assert groups.shape == (4, 2)
    assert groups[0, 0] == pytest.approx(1, rel=1e-3) and groups[1:, 1].mean() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("options", [{}, {"rank": 2}, {"preconditioner": "none"}, {"separate_targets": True}])
def test_small_steps_score_as_influence(model: str, options: dict[str, Any]) -> None:
    """The same layers, curvature and cut; what remains is the second order, and rounding of small differences."""
    targets = {"a": [Batch.of(TARGET[:1])], "b": [Batch.of(TARGET[1:])]}
    first, second = (
        scorer.fit([Batch.of(TEXTS)], targets).score(Batch.of([*TEXTS, *TARGET, LONG]))
        for scorer in (
            Mirror(model=model, fall=1e-3, **options),
            Influence(model=model, precision="fp32", **options),
        )
    )
    np.testing.assert_allclose(first, second, atol=5e-3, rtol=5e-3)


def test_what_the_fit_takes_is_what_is_asked(model: str) -> None:
    report = fit(model, target_steps=2, fall=0.02).report
    ((before, middle, after),) = report["target loss, before and after each step"]
    assert before - after == pytest.approx(0.02 * before, rel=0.2)
    assert before - middle == pytest.approx(0.01 * before, rel=0.2)
    assert len(report["step sizes"][0]) == 2 and report["target documents"] == [4]
    (sizes,) = fit(model, target_steps=2, step=1e-4).report["step sizes"]
    assert sizes == [1e-4, 1e-4]


def test_weights_are_as_before(model: str) -> None:
    fitted = fit(model, separate_targets=True)
    weights = [layer.module.weight for layer in fitted.meter.layers]
    before = [weight.clone() for weight in weights]
    first = fitted.score(Batch.of(TEXTS))
    np.testing.assert_array_equal(fitted.score(Batch.of(TEXTS)), first)
    for layer, weight, old in zip(fitted.meter.layers, weights, before, strict=True):
        assert layer.module.weight is weight and torch.equal(weight, old)


@pytest.mark.parametrize("precision", ["bf16", "autocast"])
def test_a_precision_that_is_too_coarse_is_told(model: str, precision: str) -> None:
    with pytest.warns(Notice, match=rf"mirror: with --precision {precision}, rounding takes \d+% from the steps"):
        fit(model, precision=precision, step=1e-3)
    with pytest.raises(UserError, match="its loss does not fall along a step as its gradient says"):
        fit(model, precision=precision, fall=1e-7)


def test_classifiers_have_steps_too(tmp_path: Path) -> None:
    more: dict[str, Any] = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    name = language_models.build(tmp_path, "bert", hidden=16, layers=1, task="SequenceClassification", **more)
    batch = Batch(Batch.of(TEXTS).text, {"label": Column.of([b"good", b"bad"] * 5)})
    other = Batch(Batch.of(TEXTS).text, {"label": Column.of([b"bad", b"good"] * 5)})
    fitted = Mirror(model=name, label_field="label", window=64).fit([batch], {"t": [batch]})
    right, wrong = fitted.score(batch), fitted.score(other)
    assert right.mean() == pytest.approx(1, rel=1e-3) and wrong.mean() < 0


def test_odd_documents_have_scores_and_empty_ones_have_none(model: str) -> None:
    fitted = fit(model)
    assert np.isfinite(fitted.score(Batch.of(["x", " ", LONG]))).all()
    assert np.isnan(fitted.score(Batch.of([""]))).all()
    assert fitted.score(Batch.of([])).shape == (0,)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"target_steps": 0}, "target_steps 0: out of range"),
        ({"fall": 0.0}, "fall 0.0: out of range"),
        ({"fall": 1.0}, "fall 1.0: out of range"),
        ({"step": -1.0}, "step -1.0: out of range"),
        ({"effort": "none"}, "effort 'none': unknown"),
        ({"damping": -1.0}, "damping -1.0: out of range"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        Mirror(**options)


def test_what_cannot_be_fitted_is_told(model: str) -> None:
    with pytest.raises(UserError, match="no model; name a folder or hub name with --model"):
        Mirror().fit([], {"t": [Batch.of(TARGET)]})
    with pytest.raises(UserError, match="no target; name one with --target"):
        Mirror(model=model).fit([], {})
    with pytest.raises(UserError, match="target a, b: its loss does not fall along the steps; lower --step"):
        fit(model, step=1e38)


def test_from_the_command_line(model: str, tmp_path: Path) -> None:
    pool = corpus.write(tmp_path / "pool.jsonl", corpus.pool()[::20])
    target = corpus.write(tmp_path / "target.jsonl", [{"text": text} for text in TARGET])
    options = ["--model", model, "--rank", "4", "--target-steps", "2"]
    ok("fit", "mirror", "--pool", pool, "--target", target, *options, "-o", tmp_path / "m.fitted")
    assert "before and after each step" in ok("inspect", tmp_path / "m.fitted").out.decode()
    ok("score", "mirror", "--fitted", tmp_path / "m.fitted", pool, "-o", tmp_path / "scores")
    (rows,) = ScoreFile(str(tmp_path / "scores" / ("pool.jsonl" + SUFFIX))).rows()
    assert np.isfinite(rows.score).any()
    assert "needs a target" in failure("score", "mirror", pool, "--model", model, "-o", tmp_path / "none")


def test_help_imports_no_model() -> None:
    """The options are shown without torch and transformers, which take seconds to import."""
    code = "import sys, dvsel.scorers.mirror; sys.exit(bool({'torch', 'transformers', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
