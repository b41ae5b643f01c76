"""The scorer `trak`, under one checkpoint and several."""

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
from commands import ok
from dvsel.documents.columns import Batch
from dvsel.errors import UserError
from dvsel.score_files.find import SUFFIX
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers.trak import FittedTrak, Trak
from dvsel.testing import check_scorer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:curvature:dvsel.errors.Notice")  # samples are small, and known

TEXTS = [text[:150] for text in language_models.TEXTS[:10]]
TARGET = [text[:150] for text in language_models.TEXTS[20:24]]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    return [language_models.build(folder / f"{seed}", hidden=16, layers=1, window=128, seed=seed) for seed in (0, 1)]


def fit(texts: list[str] = TARGET, **options: Any) -> FittedTrak:
    targets = {"a": [Batch.of(texts[:1])], "b": [Batch.of(texts[1:])]}
    return Trak(precision="fp32", **{"projection_dim": 200, "damping": 0.1, **options}).fit([Batch.of(TEXTS)], targets)


def parts(name: str, texts: list[str], side: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Features (documents, features), and 1 - p in the mean over tokens, by autograd in float64."""
    from dvsel.gradients.layers import choose
    from dvsel.gradients.projection import random_bases
    from dvsel.language.models import load

    model = load(name, "fp32")
    model.network.double()
    layers = choose(model, "all")
    bases = [random_bases(layer, side) for layer in layers]
    weights = [layer.module.weight.requires_grad_(True) for layer in layers]
    features, doubts = [], []
    for text in texts:
        ids = torch.tensor([[model.card.start, *model.card.tokenizer(text, add_special_tokens=False)["input_ids"]]])
        shares = model.network(input_ids=ids[:, :-1]).logits[0].softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        slopes = torch.autograd.grad((shares / (1 - shares)).log().mean(), weights)
        rows = [(one.left.T @ slope @ one.right).flatten() for one, slope in zip(bases, slopes, strict=True)]
        features.append(torch.cat(rows).numpy())
        doubts.append(float((1 - shares).detach().mean()))
    return np.stack(features), np.array(doubts)


def kernel(name: str, side: int, damping: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """phi(z)^T (Phi^T Phi)^-1 phi(target) of the pool and, in the mean, of the target's own documents."""
    phi, target = parts(name, TEXTS, side)[0], parts(name, TARGET, side)[0]
    moments = phi.T @ phi / len(phi)
    moments += damping * np.trace(moments) / len(moments) * np.eye(len(moments))
    solved = np.linalg.solve(moments, target.mean(0))
    return phi @ solved, (target @ solved).mean()


@pytest.mark.parametrize("count", [1, 2])
def test_scores_are_the_papers_with_features_written_out(models: list[str], count: int) -> None:
    """Kernels and 1 - p are averaged over checkpoints each by themselves."""
    found = fit(checkpoints=tuple(models[:count])).score(Batch.of(TEXTS))
    kernels, own = zip(*(kernel(name, 5, 0.1) for name in models[:count]), strict=True)
    doubts = [parts(name, TEXTS, 5)[1] for name in models[:count]]
    expected = np.mean(kernels, 0) / np.mean(own) * np.mean(doubts, 0)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


def test_a_scorer_as_any_other(models: list[str]) -> None:
    options: dict[str, Any] = {"projection_dim": 100, "batch_tokens": 3000, "stride": 128, "layers": "*.mlp.*"}
    scorer = Trak(model=models[0], precision="fp32", **options)
    assert isinstance(check_scorer(scorer, TEXTS, TARGET), FittedTrak)


def test_each_target_may_have_its_column(models: list[str]) -> None:
    fitted = fit(model=models[0], separate_targets=True)
    assert fitted.groups == ("a", "b") and fitted.shares == (0.25, 0.75)
    assert fitted.score(Batch.of(TEXTS)).shape == (len(TEXTS), 2)
    assert np.isnan(fitted.score(Batch.of([""]))).all()


def test_documents_of_the_target_come_first(models: list[str]) -> None:
    scores = fit(model=models[0]).score(Batch.of(TEXTS + TARGET))
    assert scores[len(TEXTS) :].min() > scores[: len(TEXTS)].max()


def test_the_fit_says_what_it_found(models: list[str]) -> None:
    report = fit(checkpoints=tuple(models), layers="*.mlp.*").report
    assert report["layers"] == 3 and report["documents for the curvature"] == len(TEXTS)
    assert report["rank"].startswith("8 to 8")  # 8 * 8 * 3 of the 200 features
    assert len(report["log odds against the target"]) == 2 and "target loss" not in report


def test_bad_options_are_refused(models: list[str], tmp_path: Path) -> None:
    assert Trak().takes_pool
    with pytest.raises(UserError, match="projection_dim 0: out of range; give 1 or more"):
        Trak(projection_dim=0)
    with pytest.raises(UserError, match="damping -1: out of range"):
        Trak(damping=-1)
    with pytest.raises(UserError, match="no model"):
        Trak().fit([], {"t": [Batch.of(TARGET)]})
    other = language_models.build(tmp_path, hidden=32, layers=1)
    with pytest.raises(UserError, match="is not a checkpoint of the same model"):
        fit(checkpoints=(models[0], other))


def test_from_the_command_line(models: list[str], tmp_path: Path) -> None:
    pool = corpus.write(tmp_path / "pool.jsonl", corpus.pool()[::20])
    target = corpus.write(tmp_path / "target.jsonl", [{"text": text} for text in TARGET])
    options = ["--checkpoints", models[0], "--checkpoints", models[1], "--precision", "fp32", "--projection-dim", "100"]
    ok("score", "trak", pool, "--target", target, *options, "-o", tmp_path / "scores")
    (rows,) = ScoreFile(str(tmp_path / "scores" / ("pool.jsonl" + SUFFIX))).rows()
    assert np.isfinite(rows.score).all() and rows.score.std() > 0


def test_help_imports_no_model() -> None:
    code = "import sys, dvsel.scorers.trak; sys.exit(bool({'torch', 'transformers', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
