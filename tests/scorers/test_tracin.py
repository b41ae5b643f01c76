"""The scorer `tracin`: beside its formula by plain autograd, and from the command line."""

from __future__ import annotations

import shutil
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
from dvsel.documents.columns import Batch
from dvsel.errors import UserError
from dvsel.score_files.find import SUFFIX
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers.tracin import FittedTracIn, TracIn
from dvsel.testing import check_scorer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [text[:90] for text in language_models.TEXTS[:6]]
TARGET = [text[:90] for text in language_models.TEXTS[20:23]]
RATES = (1e-4, 3e-5)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Two models of one shape."""
    folder = tmp_path_factory.mktemp("models")
    return tuple(
        language_models.build(folder / str(seed), hidden=16, layers=1, window=256, seed=seed) for seed in (0, 1)
    )


def fit(checkpoints: tuple[str, ...], **options: Any) -> FittedTracIn:
    scorer = TracIn(checkpoints=checkpoints, precision="fp32", **options)
    return scorer.fit([], {"t": [Batch.of(TARGET)]})


def gradients(name: str, texts: list[str]) -> npt.NDArray[np.float64]:
    """Of each text, by autograd in float64, over the linear layers of the blocks, (n, weights)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network, tokenizer = AutoModelForCausalLM.from_pretrained(name).double(), AutoTokenizer.from_pretrained(name)
    weights = [
        module.weight
        for path, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in path
    ]
    found = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        slopes = torch.autograd.grad(network(input_ids=ids, labels=ids).loss, weights)
        found.append(torch.cat([one.flatten() for one in slopes]).numpy())
    return np.array(found)


def test_scores_are_those_of_the_formula(checkpoints: tuple[str, ...]) -> None:
    """Equation 1, over its value for the target's own documents."""
    found = fit(checkpoints, learning_rates=RATES, effort="full").score(Batch.of([*TEXTS, *TARGET]))
    expected = np.zeros(len(TEXTS) + len(TARGET))
    for rate, name in zip(RATES, checkpoints, strict=True):
        expected += rate * gradients(name, [*TEXTS, *TARGET]) @ gradients(name, TARGET).mean(0)
    np.testing.assert_allclose(found, expected / expected[len(TEXTS) :].mean(), rtol=1e-4, atol=1e-5)


def test_cosines_are_averaged_by_learning_rate(checkpoints: tuple[str, ...]) -> None:
    found = fit(checkpoints, learning_rates=RATES, effort="full", similarity="cosine").score(Batch.of(TEXTS))
    expected = np.zeros(len(TEXTS))
    for rate, name in zip(RATES, checkpoints, strict=True):
        each, target = gradients(name, TEXTS), gradients(name, TARGET).mean(0)
        cosines = each @ target / np.linalg.norm(each, axis=1) / np.linalg.norm(target)
        expected += rate / sum(RATES) * cosines
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_learning_rates_are_equal_unless_given(checkpoints: tuple[str, ...]) -> None:
    given, default = (fit(checkpoints, learning_rates=rates).score(Batch.of(TEXTS)) for rates in ((2.0, 2.0), ()))
    np.testing.assert_array_equal(given, default)
    assert not np.allclose(fit(checkpoints, learning_rates=(3.0, 1.0)).score(Batch.of(TEXTS)), default)


def test_one_model_is_one_checkpoint(checkpoints: tuple[str, ...]) -> None:
    scorer = TracIn(model=checkpoints[0], precision="fp32")
    found = scorer.fit([], {"t": [Batch.of(TARGET)]}).score(Batch.of(TEXTS))
    np.testing.assert_array_equal(found, fit(checkpoints[:1]).score(Batch.of(TEXTS)))


def test_a_cut_keeps_the_order(checkpoints: tuple[str, ...]) -> None:
    texts = [text[:90] for text in language_models.TEXTS[:30]]
    whole, cut = (fit(checkpoints, rank=rank).score(Batch.of(texts)) for rank in (0, 8))
    assert np.corrcoef(whole, cut)[0, 1] > 0.9


def test_a_scorer_as_any_other(checkpoints: tuple[str, ...]) -> None:
    scorer = TracIn(
        checkpoints=checkpoints, learning_rates=RATES, precision="fp32", batch_tokens=4096, stride=256, rank=2
    )
    check_scorer(scorer, TEXTS, TARGET)


def test_the_fit_says_what_it_found(checkpoints: tuple[str, ...]) -> None:
    fitted = fit(checkpoints, rank=4)
    (first, second) = fitted.report["target loss"]
    assert len(first) == 1 and first != second
    assert "rank: 4 to 4, 4.0 on average" in fitted.lines()
    assert not any("curvature" in line for line in fitted.lines())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"checkpoints": ("a", "b"), "learning_rates": (1.0,)},
            "1 learning rates for 2 checkpoints; give one for each",
        ),
        ({"checkpoints": ("a",), "learning_rates": (-1.0,)}, r"learning_rates -1\.0: out of range"),
        ({"checkpoints": ("a",), "learning_rates": (float("nan"),)}, "learning_rates nan: out of range"),
        ({"checkpoints": ("a",), "model": "b"}, "--checkpoints beside --model"),
        ({"similarity": "l2"}, "similarity 'l2': unknown"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        TracIn(**options)


def test_what_cannot_be_fitted_is_told(checkpoints: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoints; name folders or hub names with --checkpoints"):
        TracIn().fit([], {"t": [Batch.of(TARGET)]})
    with pytest.raises(UserError, match="no such folder"):
        fit((checkpoints[0], str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match="no target; name one with --target"):
        TracIn(checkpoints=checkpoints, precision="fp32").fit([], {})
    other = language_models.build(tmp_path / "other", hidden=32, layers=1)
    with pytest.raises(UserError, match="is not a checkpoint of the same model as"):
        fit((checkpoints[0], other))


def test_a_checkpoint_that_changed_is_refused(checkpoints: tuple[str, ...], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoints[1], tmp_path / "changing"))
    fitted = fit((checkpoints[0], str(folder)))
    language_models.build(folder, hidden=16, layers=1, window=256, seed=2)
    with pytest.raises(UserError, match="is not the one of the fit, or its files changed; fit again"):
        fitted.score(Batch.of(["x"]))


# --- From the command line. ---


def test_fit_and_score(checkpoints: tuple[str, ...], tmp_path: Path) -> None:
    documents = [document | {"text": document["text"][:200]} for document in corpus.pool()[::60]]
    pool = corpus.write(tmp_path / "pool.jsonl", documents)
    target = corpus.write(tmp_path / "target.jsonl", [{"text": text} for text in TARGET])
    options = ["--target", target, "--precision", "fp32", "--rank", "4", "-o"]
    fitted = tmp_path / "t.fitted"
    ok("fit", "tracin", "--checkpoints", *checkpoints, "--learning-rates", "1e-4", "3e-5", *options, fitted)
    apart = [word for name in checkpoints for word in ("--checkpoints", name)]
    rates = ["--learning-rates", "1e-4", "--learning-rates", "3e-5"]
    ok("score", "tracin", pool, "--fitted", fitted, "-o", tmp_path / "scores")
    ok("score", "tracin", pool, *apart, *rates, *options, tmp_path / "again")
    first, second = (ScoreFile(str(tmp_path / folder / ("pool.jsonl" + SUFFIX))) for folder in ("scores", "again"))
    (rows,), (others,) = first.rows(), second.rows()
    np.testing.assert_array_equal(rows.score, others.score)
    assert np.isfinite(rows.score).all()
    assert "learning_rates=[0.0001, 3e-05]" in first.header.scorer


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    pool = corpus.write(tmp_path / "pool.jsonl", corpus.pool()[:3])
    assert "needs a target" in failure("score", "tracin", pool, "--checkpoints", "a", "-o", tmp_path / "a")
    assert "no checkpoints" in failure("score", "tracin", pool, "--target", pool, "-o", tmp_path / "b")


def test_help_imports_no_model() -> None:
    """The options are shown without torch and transformers, which take seconds to import."""
    code = "import sys, dvsel.scorers.tracin; sys.exit(bool({'torch', 'transformers', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
