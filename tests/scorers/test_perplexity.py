"""The scorer `perplexity`: minus the loss, in each measure, from batches and from the command line."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import corpus
import language_models
from commands import failure, ok
from dvsel.documents.columns import Batch, Column, Kind, Status
from dvsel.errors import UserError
from dvsel.score_files.find import SUFFIX
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers.perplexity import FittedPerplexity, Perplexity
from dvsel.testing import check_scorer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from dvsel.language.models import load  # noqa: E402
from dvsel.language.token_losses import LossMeter  # noqa: E402  (needs both)

TEXTS = [text[:300] for text in language_models.TEXTS[:8]] + ["Größe 漢字 🙂", "x"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return language_models.build(tmp_path_factory.mktemp("models") / "llama", hidden=16, layers=1, window=128)


def score(model: str, batch: Batch, **options: Any) -> list[float]:
    fitted = Perplexity(model=model, precision="fp32", **options).fit([], {})
    scores = fitted.score(batch)
    assert scores.dtype == np.float32 and scores.shape == (len(batch),)
    return list(map(float, scores))


def with_prompts(texts: list[str], prompts: list[bytes | None], kinds: list[int] | None = None) -> Batch:
    return Batch(Batch.of(texts).text, {"prompt": Column.of(prompts, kinds)})


def test_a_scorer_as_any_other(model: str) -> None:
    check_scorer(Perplexity(model=model, precision="fp32", batch_tokens=700), TEXTS)
    check_scorer(Perplexity(model=model, precision="fp32", measure="min-k", min_k=5, stride=100), TEXTS)


def test_each_measure_is_of_the_token_losses(model: str) -> None:
    losses = LossMeter(load(model, "fp32")).token_losses(TEXTS)
    batch = Batch.of(TEXTS)
    assert score(model, batch) == pytest.approx([-one.mean() for one in losses], rel=1e-5)
    totals = [-math.fsum(one) for one in losses]
    assert score(model, batch, measure="total") == pytest.approx(totals, rel=1e-5)
    bits = [total / math.log(2) / len(text) for total, text in zip(totals, TEXTS, strict=True)]
    assert score(model, batch, measure="bits-per-char") == pytest.approx(bits, rel=1e-5)
    least_likely = [-np.sort(one)[-max(len(one) // 10, 1) :].mean() for one in losses]
    assert score(model, batch, measure="min-k", min_k=10.0) == pytest.approx(least_likely, rel=1e-5)


def test_odd_documents_have_scores(model: str) -> None:
    invalid = Batch(Column.of([b"\xff\xfe caf\xe9", b"x", "🙂".encode(), b" ", b"\0", b"</s>", b"<s>"]))
    assert np.isfinite(score(model, invalid)).all()
    assert np.isnan(score(model, Batch.of([""]))).all()


def test_a_document_of_a_megabyte_has_a_score(model: str) -> None:
    text = ("".join(language_models.TEXTS) * 10)[:1_000_000]
    (found,) = score(model, Batch.of([text]), stride=128, measure="bits-per-char")
    assert 0 < -found < 64


def test_the_prompt_is_what_the_text_follows(model: str) -> None:
    prompts = [f"Instruction {row}" for row in range(len(TEXTS))]
    batch = with_prompts(TEXTS, [prompt.encode() for prompt in prompts])
    meter = LossMeter(load(model, "fp32"))
    for given, meant in ((r"\n", "\n"), (r"\n\nAnswer: ", "\n\nAnswer: "), ("\n ", "\n "), ("", "")):
        expected = meter.token_losses(TEXTS, [prompt + meant for prompt in prompts])
        found = score(model, batch, prompt_field="prompt", prompt_separator=given)
        assert found == pytest.approx([-one.mean() for one in expected], rel=1e-5)


def test_a_document_without_its_prompt_has_no_score(model: str) -> None:
    batch = with_prompts(["text"] * 4, [b"a", None, b"", b"7"], [Kind.STRING, Kind.NULL, Kind.STRING, Kind.NUMBER])
    assert np.isnan(score(model, batch, prompt_field="prompt")).tolist() == [False, True, False, True]


def test_likely_documents_score_higher(model: str, tmp_path: Path) -> None:
    """A model that was trained on one sentence prefers it."""
    folder = Path(shutil.copytree(model, tmp_path / "trained"))
    known, unknown = "the cat sat on the mat, and the dog did not.", "seven rainy Tuesdays in a row, then sun!"
    loaded = load(str(folder), "fp32")
    network, tokenizer = loaded.network.train().requires_grad_(True), loaded.card.tokenizer
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    ids = torch.tensor([tokenizer(known)["input_ids"]])
    for _ in range(40):
        optimizer.zero_grad()
        network(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    network.save_pretrained(folder)
    first, second = score(str(folder), Batch.of([known, unknown]))
    assert first > -1 > second


def test_the_fit_says_what_it_found_and_holds_no_weights(model: str) -> None:
    fitted = Perplexity(model=model, stride=50).fit([], {})
    assert fitted.report == {"architecture": "llama", "window": 128, "stride": 50, "start token": "<s>"}
    assert {name: array.nbytes for name, array in fitted.arrays.items()} == {"digest": 16}


def test_a_model_that_changed_after_the_fit_is_refused(model: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "changing"))
    fitted = Perplexity(model=str(folder)).fit([], {})
    language_models.build(folder, hidden=16, layers=1, window=128, seed=1)
    with pytest.raises(UserError, match="its files changed after the fit"):
        fitted.score(Batch.of(["x"]))


def test_the_model_is_loaded_once_and_late(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr("dvsel.language.models.load", lambda *which: loaded.append(which) or load(*which))  # type: ignore[func-returns-value]
    fitted = FittedPerplexity(Perplexity(model=model), Perplexity(model=model).fit([], {}).arrays)
    assert fitted.score(Batch.of([])).shape == (0,) and loaded == []
    for _ in range(2):
        fitted.score(Batch.of(["x"]))
    assert loaded == [(model, "auto")]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"measure": "median"}, "measure 'median': unknown"),
        ({"precision": "fp16"}, "precision 'fp16': unknown"),
        ({"measure": "min-k", "min_k": 0.0}, "min_k 0.0: out of range"),
        ({"min_k": math.nan}, "min_k nan: out of range"),
        ({"measure": "min-k", "min_k": 101.0}, "min_k 101.0: out of range"),
        ({"window": -1}, "window -1: out of range"),
        ({"stride": -1}, "stride -1: out of range"),
        ({"batch_tokens": -1}, "batch_tokens -1: out of range"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        Perplexity(**options)


def test_options_that_the_model_refuses_are_told_at_the_fit(model: str) -> None:
    with pytest.raises(UserError, match="no model; name a folder or hub name with --model"):
        Perplexity().fit([], {})
    with pytest.raises(UserError, match="takes 128 tokens"):
        Perplexity(model=model, window=500).fit([], {})
    with pytest.raises(UserError, match="beyond the window of 128 tokens"):
        Perplexity(model=model, stride=129).fit([], {})


# --- From the command line. ---


def test_score_and_select(model: str, tmp_path: Path) -> None:
    documents = corpus.pool()[::20]
    pool = corpus.write(tmp_path / "pool.jsonl", documents)
    ok("score", "perplexity", pool, "--model", model, "--precision", "fp32", "-o", tmp_path / "scores")
    (rows,) = ScoreFile(str(tmp_path / "scores" / ("pool.jsonl" + SUFFIX))).rows()
    expected = score(model, Batch.of([document["text"] for document in documents]))
    np.testing.assert_allclose(rows.score[:, 0], expected, atol=Perplexity.tolerance)
    ok("select", tmp_path / "scores", "--budget", "5 docs", "-o", tmp_path / "kept")
    best = np.argsort(expected)[-5:]
    assert corpus.selected_ids(tmp_path / "kept") == {documents[row]["id"] for row in best}


def test_the_response_given_the_instruction(model: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"ask": {"it": "Say yes."}, "output": "yes"}, {"ask": {}, "output": "yes"}]
    pool = corpus.write(tmp_path / "pool.jsonl", rows)
    answer = ok("score", "perplexity", pool, "--model", model, "--prompt-field", "ask.it", "--text-field", "output",
                "-o", tmp_path / "scores")  # fmt: skip
    (found,) = ScoreFile(str(tmp_path / "scores" / ("pool.jsonl" + SUFFIX))).rows()
    assert found.status.tolist() == [Status.SCORED, Status.UNSCORED]
    assert "no tokens to score, or no prompt" in answer.err


def test_a_filter_on_a_pipe(model: str, tmp_path: Path) -> None:
    ok("fit", "perplexity", "--model", model, "-o", tmp_path / "p.fitted")
    answer = ok("score", "perplexity", "--fitted", tmp_path / "p.fitted", "-", stdin=corpus.lines([{"text": "x"}]))
    assert json.loads(answer.out)["dvsel_perplexity"] < 0


def test_what_is_wrong_with_the_model_is_one_line(tmp_path: Path) -> None:
    pool = corpus.write(tmp_path / "pool.jsonl", corpus.pool()[:3])
    assert "no model" in failure("score", "perplexity", pool, "-o", tmp_path / "a")
    (tmp_path / "empty").mkdir()
    assert "holds no config.json" in failure(
        "score", "perplexity", pool, "--model", tmp_path / "empty", "-o", tmp_path / "b"
    )


def test_help_imports_no_model() -> None:
    """The options are shown without torch and transformers, which take seconds to import."""
    code = "import sys, dvsel.scorers.perplexity; sys.exit(bool({'torch', 'transformers', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
