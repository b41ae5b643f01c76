"""The scorer `vog`: fitted, saved and run, from batches and from the command line."""

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
from dvsel.scorers.vog import VoG
from dvsel.testing import check_scorer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TEXTS = [text[:200] for text in language_models.TEXTS[:10]]
LONG = language_models.TEXTS[7][:900]


pytestmark = pytest.mark.usefixtures("one_thread")


def score(texts: list[str], scorer: VoG) -> npt.NDArray[np.float32]:
    return scorer.fit([], {}).score(Batch.of(texts))


def test_a_scorer_as_any_other(models: tuple[str, ...]) -> None:
    check_scorer(VoG(checkpoints=models, precision="fp32", batch_tokens=3000, stride=64), TEXTS)


def test_the_deviation_over_checkpoints_of_what_embeddings_matter(classifiers: tuple[str, ...]) -> None:
    """Of the given label's logit, by autograd, a document at a time; two checkpoints."""
    from dvsel.language.models import load

    labels = ["good", "bad"] * 5
    gradients = []
    for name in classifiers:
        loaded = load(name, "fp32", classifiers=True)
        vectors = [
            loaded.network.get_input_embeddings()(torch.tensor([loaded.card.tokenizer(text)["input_ids"][:64]]))
            for text in TEXTS
        ]
        gradients.append([
            torch.autograd.grad(
                loaded.network(inputs_embeds=one.requires_grad_(True)).logits[0, ["bad", "good"].index(label)], one
            )[0]
            for one, label in zip(vectors, labels, strict=True)
        ])  # fmt: skip
    expected = [
        float((one - other).abs().mean() / 2)  # the standard deviation of two
        for one, other in zip(*gradients, strict=True)
    ]
    fitted = VoG(checkpoints=classifiers, label_field="label", precision="fp32", window=64).fit([], {})
    np.testing.assert_allclose(fitted.score(language_models.labelled(TEXTS, labels)), expected, rtol=1e-4)


def test_a_document_said_twice_is_about_as_uncertain(models: tuple[str, ...]) -> None:
    """The score is no measure of length."""
    texts = [text[:60] for text in language_models.TEXTS[:8]]
    once, twice = (score(many, VoG(checkpoints=models)) for many in (texts, [text + " " + text for text in texts]))
    assert 0.5 < np.mean(twice / once) < 2


def test_documents_without_tokens_have_no_score(models: tuple[str, ...]) -> None:
    found = score(["", "x", LONG], VoG(checkpoints=models))
    assert np.isnan(found).tolist() == [True, False, False]


def test_what_cannot_be_fitted_is_told(models: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="vog: one model, which has no variance; name 2 or more"):
        VoG(model=models[0]).fit([], {})
    other = language_models.build(tmp_path / "other", hidden=16, layers=1, window=64, special=("eos",))
    with pytest.raises(UserError, match="other: is not a checkpoint of the same model as"):
        VoG(checkpoints=(models[0], other)).fit([], {})


def test_from_the_command_line(models: tuple[str, ...], tmp_path: Path) -> None:
    pool = corpus.write(tmp_path / "pool.jsonl", corpus.pool()[::20])
    ok("score", "vog", pool, *each("--checkpoints", models), "-o", tmp_path / "scores")
    (rows,) = ScoreFile(str(tmp_path / "scores" / ("pool.jsonl" + SUFFIX))).rows()
    assert np.nanmin(rows.score) > 0
    assert "2 or more checkpoints" in failure("score", "vog", pool, "--model", models[0], "-o", tmp_path / "none")


def test_help_imports_no_model() -> None:
    """The options are shown without torch and transformers, which take seconds to import."""
    code = "import sys, dvsel.scorers.vog; sys.exit(bool({'torch', 'transformers', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
