"""The scorer `el2n`: fitted, saved and run, from batches and from the command line."""

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
from dvsel.scorers.el2n import EL2N
from dvsel.testing import check_scorer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TEXTS = [text[:200] for text in language_models.TEXTS[:10]]
LONG = language_models.TEXTS[7][:900]


pytestmark = pytest.mark.usefixtures("one_thread")


def score(texts: list[str], scorer: EL2N) -> npt.NDArray[np.float32]:
    return scorer.fit([], {}).score(Batch.of(texts))


def test_a_scorer_as_any_other(models: tuple[str, ...]) -> None:
    check_scorer(EL2N(checkpoints=models, precision="fp32", batch_tokens=3000, stride=64), TEXTS)


def test_the_length_of_the_error(models: tuple[str, ...]) -> None:
    """In its mean over tokens, or their sum; written out from the probabilities."""
    from dvsel.language.models import load

    loaded = load(models[0], "fp32")
    ids = torch.tensor([loaded.card.tokenizer(TEXTS[0])["input_ids"][:60]])
    with torch.inference_mode():
        shares = loaded.network(input_ids=ids).logits[0, :-1].softmax(-1)
    right = torch.nn.functional.one_hot(ids[0, 1:], shares.shape[1])
    lengths = (shares - right).square().sum(1).sqrt()
    text = loaded.card.tokenizer.decode(ids[0, 1:])
    assert score([text], EL2N(model=models[0]))[0] == pytest.approx(float(lengths.mean()), rel=1e-5)
    assert score([text], EL2N(model=models[0], reduction="sum"))[0] == pytest.approx(float(lengths.sum()), rel=1e-5)


def test_the_mean_over_checkpoints(models: tuple[str, ...]) -> None:
    found = [score([*TEXTS, LONG], EL2N(model=model)) for model in models]
    np.testing.assert_allclose(score([*TEXTS, LONG], EL2N(checkpoints=models)), np.mean(found, 0), rtol=1e-6)


def test_a_wrong_label_is_a_larger_error(classifiers: tuple[str, ...]) -> None:
    """Both labels of a document: the errors are of sqrt(2) (1 - p), whose sum is sqrt(2)."""
    fitted = EL2N(model=classifiers[0], label_field="label").fit([], {})
    good, bad, unknown = (fitted.score(language_models.labelled(TEXTS, [label] * 10)) for label in ("good", "bad", "?"))
    np.testing.assert_allclose(good + bad, 2**0.5, rtol=1e-5)
    assert np.isnan(unknown).all()


def test_the_fit_says_what_it_found(models: tuple[str, ...], classifiers: tuple[str, ...]) -> None:
    assert EL2N(checkpoints=models).fit([], {}).report == {
        "architecture": "llama", "models": 2, "window": 64, "stride": 32
    }  # fmt: skip
    report = EL2N(checkpoints=classifiers, label_field="label").fit([], {}).report
    assert report == {"architecture": "bert", "models": 2, "window": 64}


def test_what_cannot_be_fitted_is_told(models: tuple[str, ...], classifiers: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="no model; name a folder or hub name with --model"):
        EL2N().fit([], {})
    with pytest.raises(UserError, match="is a sequence classifier; name the field of labels with --label-field"):
        EL2N(model=classifiers[0]).fit([], {})
    with pytest.raises(UserError, match="is not a sequence classifier; drop --label-field"):
        EL2N(model=models[0], label_field="label").fit([], {})
    with pytest.raises(UserError, match=r"window 100: model .* takes 64 tokens"):
        EL2N(model=models[0], window=100).fit([], {})


def test_from_the_command_line(models: tuple[str, ...], classifiers: tuple[str, ...], tmp_path: Path) -> None:
    pool = corpus.write(tmp_path / "pool.jsonl", corpus.pool()[::20])
    ok("score", "el2n", pool, *each("--checkpoints", models), "-o", tmp_path / "scores")
    (rows,) = ScoreFile(str(tmp_path / "scores" / ("pool.jsonl" + SUFFIX))).rows()
    assert np.nanmin(rows.score) > 0 and np.nanmax(rows.score) < 2**0.5
    lines = corpus.lines([{"text": "x", "kind": "good"}, {"text": "x", "kind": "what"}])
    answer = ok("score", "el2n", "--model", classifiers[0], "--label-field", "kind", "-", stdin=lines).out.decode()
    assert ['"dvsel_el2n":null' in line for line in answer.splitlines()] == [False, True]
    assert "no model" in failure("score", "el2n", pool, "-o", tmp_path / "none")


def test_help_imports_no_model() -> None:
    """The options are shown without torch and transformers, which take seconds to import."""
    code = "import sys, dvsel.scorers.el2n; sys.exit(bool({'torch', 'transformers', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
