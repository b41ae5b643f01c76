"""The worked PreSelect recipe: its parts against their definitions, and a small run of the whole."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from commands import environment

RECIPE = Path(__file__).parents[1] / "recipes" / "preselect"
TEXTS = sorted(set(topics.values()))

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
sys.path.append(str(RECIPE))
cloze, documents, small_models, tables, recipe = (
    importlib.import_module(name) for name in ("cloze", "documents", "small_models", "tables", "worked")
)
pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = small_models.Size(width=32, layers=1, steps=12)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return small_models.make_tokenizer(TEXTS, 400)


def trained(tokenizer: Any, texts: list[str], seed: int = 0) -> Any:
    model = small_models.new_model(SIZE, len(tokenizer), seed)
    small_models.train(model, small_models.pack(tokenizer, texts), SIZE, seed)
    return model


def worked(*words: object, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RECIPE / "worked.py"), *map(str, words)]
    return subprocess.run(command, env=environment(**environ), capture_output=True, text=True, timeout=600)


def quick(work: Path) -> subprocess.CompletedProcess[str]:
    ran = worked("--quick", "-o", work, OMP_NUM_THREADS="1")  # models this small only wait for a second one
    assert ran.returncode == 0, ran.stderr
    return ran


def files_in(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# Models


def test_blocks_hold_the_documents_each_after_an_end_token(tokenizer: Any) -> None:
    blocks = small_models.pack(tokenizer, TEXTS[:5])
    assert blocks.shape[1] == small_models.CONTEXT
    packed = "".join(small_models.END + text for text in TEXTS[:5])
    assert packed.startswith(tokenizer.decode(blocks.flatten()))


def test_training_is_repeatable_and_depends_on_the_seed(tokenizer: Any) -> None:
    first, again, other = (trained(tokenizer, TEXTS[:20], seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_an_epoch_has_each_block_once() -> None:
    blocks = torch.arange(3 * small_models.BATCH)[:, None]
    batches = small_models._shuffled(blocks, seed=0)
    epochs = [torch.cat([next(batches) for _ in range(3)]).flatten().tolist() for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert [sorted(epoch) for epoch in epochs] == [list(range(len(blocks)))] * 2


def test_losses_are_those_of_each_row_alone(tokenizer: Any) -> None:
    model = trained(tokenizer, TEXTS[:5])
    tokens = small_models.encode(tokenizer, ["".join(TEXTS)])[0]
    rows = [tokens[:length] for length in (7, 40, 200, 600)]
    given = [1, 30, 4, 500]
    found = small_models.losses(model, rows, given)
    for row, first, loss in zip(rows, given, found, strict=True):
        kept = row[-small_models.CONTEXT :]
        labels = torch.tensor([kept])
        labels[:, : first - (len(row) - len(kept))] = -100
        mean = model(input_ids=torch.tensor([kept]), labels=labels).loss.item()
        assert loss == pytest.approx(mean * (len(row) - first), rel=1e-4)


# Text


def test_pieces_are_short_and_hold_the_whole_text() -> None:
    text = "\n\n".join(TEXTS)
    cut = list(documents.pieces([documents.Document("a", "b", text)], 300))
    assert "".join(piece.text for piece in cut) == text
    assert max(len(piece.text) for piece in cut) <= 300
    assert len({piece.id for piece in cut}) == len(cut)


def test_documents_are_read_as_written(tmp_path: Path) -> None:
    made = [documents.Document(str(number), "café", text) for number, text in enumerate([*TEXTS, "\u2028 \0"])]
    documents.write(tmp_path / "pool.jsonl", made)
    assert documents.read(tmp_path / "pool.jsonl") == documents.read(tmp_path) == made
    assert sorted(documents.draw([str(tmp_path / "pool.jsonl")], 1 << 30, seed=1), key=lambda one: int(one.id)) == made


# The cloze test


def test_items_are_gaps_in_the_texts() -> None:
    items = cloze.make_items(TEXTS, 200, seed=0)
    assert 190 < len(items) <= 200  # few words are as long as the longest
    for item in items:
        right, *wrong = item.candidates
        assert any(f"{item.before} {right}{item.after}" in text for text in TEXTS)
        assert right not in wrong and len({right, *wrong}) == 4
        assert {len(word) for word in item.candidates} == {len(right)}


def test_chance_is_a_quarter_and_who_knows_the_texts_is_right(tokenizer: Any) -> None:
    items = cloze.make_items(TEXTS, 400, seed=0)
    untrained = small_models.new_model(SIZE, len(tokenizer), 0).eval()
    assert cloze.accuracy(untrained, tokenizer, items) == pytest.approx(0.25, abs=0.06)
    assert cloze.accuracy(Memory(small_models.encode(tokenizer, TEXTS), len(tokenizer)), tokenizer, items) > 0.9


class Memory:
    """Stands in for a model: finds likely what it has seen after the same three tokens."""

    def __init__(self, texts: list[list[int]], vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.seen: dict[tuple[int, ...], set[int]] = {}
        for tokens in texts:
            for end in range(3, len(tokens)):
                self.seen.setdefault(tuple(tokens[end - 3 : end]), set()).add(tokens[end])

    def __call__(self, input_ids: Any) -> SimpleNamespace:
        logits = torch.zeros(*input_ids.shape, self.vocabulary)
        for row, tokens in enumerate(input_ids.tolist()):
            for end in range(3, len(tokens) + 1):
                logits[row, end - 1, list(self.seen.get(tuple(tokens[end - 3 : end]), ()))] = 10
        return SimpleNamespace(logits=logits)


# Tables


def test_differences_to_random_are_paired_by_seed() -> None:
    runs = {"random": [4.0, 5.0], "good": [3.5, 4.9], "bad": [6.0, 6.0]}
    results = {
        name: [{"nats_a_token": loss, "bits_a_byte": loss / 2, "tokens": 4096} for loss in losses]
        for name, losses in runs.items()
    }
    table = tables.result_table(results)
    rows = [re.split(r" *\| *", line.strip("| ")) for line in table.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[2:]] == ["good", "random", "bad"]
    assert rows[2][1:] == ["4.200 (3.500 to 4.900)", "2.100 (1.750 to 2.450)", "-0.300 (-0.500 to -0.100)"]
    assert "4,096 tokens; mean of 2 seeds" in table and "lowest mean loss: good" in table


# The whole


@pytest.mark.slow
def test_a_quick_run_compares_all_methods_and_resumes(tmp_path: Path) -> None:
    first = quick(tmp_path / "work")
    results = [json.loads(path.read_text()) for path in sorted((tmp_path / "work" / "results").iterdir())]
    assert len(results) == 4 * 2
    assert len({result["tokens"] for result in results}) == 1, "selections were trained on for different lengths"
    assert all(0 < result["nats_a_token"] < np.log(512) for result in results)
    for name in ("random", "preselect", "dsir", "perplexity"):
        assert f"| {name} " in first.stdout

    kept = tmp_path / "work" / "results" / "random-0.json"
    (tmp_path / "work" / "results" / "dsir-1.json").unlink()
    before = files_in(tmp_path / "work")
    quick(tmp_path / "work")
    changed = {path.name for path, time in files_in(tmp_path / "work").items() if before.get(path) != time}
    assert kept.name not in changed and "dsir-1.json" in changed
    assert not [name for name in changed if name.endswith((".safetensors", ".fitted", ".parquet"))]

    with pytest.raises(SystemExit, match="other settings"):
        recipe.main(["--quick", "--seeds", "3", "-o", str(tmp_path / "work")])


@pytest.mark.slow
def test_the_full_run_on_real_text(tmp_path: Path, shared_data: Path) -> None:
    targets = sorted((shared_data / "targets").glob("lambada.*.jsonl.zst"))
    pool = sorted((shared_data / "pool").glob("*.jsonl.zst"))
    ran = worked(*pool, *(word for path in targets for word in ("--target", path)), "-o", tmp_path / "work")
    assert ran.returncode == 0, ran.stderr
    seconds = json.loads((tmp_path / "work" / "seconds.json").read_text())
    assert sum(clock for clock, _ in seconds.values()) < 900
