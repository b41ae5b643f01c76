"""The scorer `grand`: fitted, saved and run, from batches and from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import corpus
import language_models
from commands import each, failure, ok
from dvsel.documents.columns import Batch
from dvsel.errors import UserError
from dvsel.score_files.find import SUFFIX
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers.grand import GraNd
from dvsel.testing import check_scorer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TEXTS = [text[:200] for text in language_models.TEXTS[:10]]
LONG = language_models.TEXTS[7][:900]


pytestmark = pytest.mark.usefixtures("one_thread")


def score(texts: list[str], scorer: GraNd) -> npt.NDArray[np.float32]:
    return scorer.fit([], {}).score(Batch.of(texts))


def test_a_scorer_as_any_other(models: tuple[str, ...]) -> None:
    check_scorer(GraNd(checkpoints=models, precision="fp32", batch_tokens=3000, stride=64, layers="*.mlp.*"), TEXTS)


def test_the_norm_is_that_of_autograd(models: tuple[str, ...]) -> None:
    from dvsel.gradients.layers import choose
    from dvsel.language.models import load

    loaded = load(models[0], "fp32")
    weights = [layer.module.weight.requires_grad_(True) for layer in choose(loaded, "all")]
    expected = []
    for text in TEXTS:
        ids = torch.tensor([loaded.card.tokenizer(text)["input_ids"][:65]])
        logits = loaded.network(input_ids=ids[:, :-1]).logits[0]
        loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:])
        expected.append(float(sum(one.square().sum() for one in torch.autograd.grad(loss, weights)) ** 0.5))
    texts = [loaded.card.tokenizer.decode(loaded.card.tokenizer(text)["input_ids"][1:65]) for text in TEXTS]
    np.testing.assert_allclose(score(texts, GraNd(model=models[0], precision="fp32")), expected, rtol=1e-4)


def test_the_mean_over_checkpoints(models: tuple[str, ...]) -> None:
    found = [score([*TEXTS, LONG], GraNd(model=model, precision="fp32")) for model in models]
    both = score([*TEXTS, LONG], GraNd(checkpoints=models, precision="fp32"))
    np.testing.assert_allclose(both, np.mean(found, 0), rtol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_documents_without_tokens_have_no_score(models: tuple[str, ...]) -> None:
    found = score(["", "x"], GraNd(model=models[0]))
    assert np.isnan(found[0]) and found[1] > 0


def test_the_fit_says_what_it_found(models: tuple[str, ...]) -> None:
    report = GraNd(checkpoints=models).fit([], {}).report
    assert report == {"architecture": "llama", "models": 2, "window": 64, "stride": 32, "layers": 7, "weights": 4608}


def test_what_cannot_be_fitted_is_told(models: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model; name a folder or hub name with --model"):
        GraNd().fit([], {})
    with pytest.raises(UserError, match="--checkpoints beside --model"):
        GraNd(model=models[0], checkpoints=models)
    with pytest.raises(UserError, match="matches no layer"):
        GraNd(model=models[0], layers="*.nothing").fit([], {})
    other = language_models.build(tmp_path / "other", hidden=32, layers=1, window=64)
    with pytest.raises(UserError, match=r"other: is not a checkpoint of the same model as .*seed0"):
        GraNd(checkpoints=(models[0], other)).fit([], {})


def test_a_changed_checkpoint_is_refused(models: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "changing"
    language_models.build(folder, hidden=16, layers=1, window=64)
    fitted = GraNd(checkpoints=(models[0], str(folder))).fit([], {})
    language_models.build(folder, hidden=16, layers=1, window=64, seed=5)
    with pytest.raises(UserError, match="changing: is not the one of the fit, or its files changed; fit again"):
        fitted.score(Batch.of(["x"]))


def test_from_the_command_line(models: tuple[str, ...], tmp_path: Path) -> None:
    pool = corpus.write(tmp_path / "pool.jsonl", corpus.pool()[::20])
    ok("score", "grand", pool, *each("--checkpoints", models), "-o", tmp_path / "scores")
    (rows,) = ScoreFile(str(tmp_path / "scores" / ("pool.jsonl" + SUFFIX))).rows()
    assert np.isfinite(rows.score).any()
    assert "no model" in failure("score", "grand", pool, "-o", tmp_path / "none")


def test_help_imports_no_model() -> None:
    """The options are shown without torch and transformers, which take seconds to import."""
    code = "import sys, dvsel.scorers.grand; sys.exit(bool({'torch', 'transformers', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
