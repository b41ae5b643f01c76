"""PreSelect worked through on real text: from a ladder of small models to a table of what each selection taught.

    python recipes/preselect/worked.py pool/*.jsonl.zst --target target.jsonl -o work/

Without a pool it takes the text that every Python installation carries. The steps, each of which leaves files in
`work/` and is skipped where these exist:

 1. text       a sample of the pool, cut into pieces: some teach the ladder, the others are the candidates. The target
               is divided into what DSIR sees, what the cloze test is made of, and what is held out
 2. ladder     a tokenizer, and models of several sizes, steps and mixtures of domains; their accuracy in the test
 3. scores     dvsel fits PreSelect on the ladder, and scores the candidates by it, by DSIR and by perplexity
 4. selection  dvsel keeps the same budget of tokens by each of these scores, and at random
 5. training   the same small model on each selection, with several seeds: its loss on the held-out target

README.md beside this file has the choices, their reasons, and the table that came out.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from cloze import accuracy, make_items
from small_models import BATCH, CONTEXT, Size, encode, losses, make_tokenizer, new_model, pack, save, train
from tables import composition_table, ladder_table, result_table, seconds_table

from documents import Document, draw, pieces, read, write
from dvsel.budget import Budget
from dvsel.commands.demo import build as build_demo
from dvsel.errors import UserError
from dvsel.runs.output_folder import REPORT

LONGEST = 1000  # characters of a piece
TOKENIZER_TEXT = 4_000_000  # bytes that the tokenizer is learned from
STUDENT = Size(64, 2, 0)  # takes as many steps as the selections have text for
LADDER = (
    Size(32, 1, 400),
    Size(32, 2, 600),
    Size(48, 1, 600),
    Size(64, 1, 600),
    Size(64, 1, 1000),
    Size(64, 2, 600),
    Size(64, 2, 1000),
    Size(96, 2, 1000),
)


@dataclass(frozen=True)
class Settings:
    """What a run depends on."""

    pool: tuple[str, ...]
    target: tuple[str, ...]
    seeds: int = 3
    budget: str = "10%"
    candidates: str = "12MB"
    ladder_text: str = "12MB"
    losses_text: str = "4MB"  # of the candidates: what the ladder reads to find strengths
    vocabulary: int = 2048
    items: int = 3000  # of the cloze test
    student: Size = STUDENT
    ladder: tuple[Size, ...] = LADDER


QUICK = {
    "seeds": 2,
    "budget": "30%",  # with fewer tokens, some students end worse than a uniform guess
    "candidates": "600KB",
    "ladder_text": "300KB",
    "losses_text": "200KB",
    "vocabulary": 512,
    "items": 300,
    "student": Size(32, 1, 0),
    "ladder": (Size(16, 1, 32), Size(16, 1, 128), Size(32, 1, 32), Size(32, 1, 64), Size(32, 1, 128)),
}
"""A run of a minute: it shows that every step works, and its figures mean nothing."""


@dataclass(frozen=True)
class Method:
    """A way to choose from scores. varies: whether the seed changes what is chosen."""

    scores: str
    flags: tuple[str, ...] = ()
    varies: bool = False


METHODS = {
    "random": Method("preselect", ("--method", "random"), varies=True),
    "preselect": Method("preselect"),
    "dsir": Method("dsir", ("--temperature", "0.1"), varies=True),
    "perplexity": Method("perplexity", ("--method", "topk")),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all steps, and print what came out."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(2)
    settings, work = _parse(arguments)
    _claim(work, settings)
    with _stage(work, "text"):
        make_text(settings, work)
    with _stage(work, "tokenizer"):
        tokenizer = make_work_tokenizer(settings, work)
    with _stage(work, "ladder"):
        make_ladder(settings, work, tokenizer)
    with _stage(work, "fit preselect"):
        fit_preselect(settings, work)
    with _stage(work, "scores"):
        score(work)
    with _stage(work, "selection"):
        select(settings, work)
    with _stage(work, "training"):
        results = compare(settings, work, tokenizer)
    report = "\n\n".join(
        [
            ladder_table(yaml.safe_load((work / "ladder.yaml").read_text())["models"]),
            result_table(results),
            composition_table({name: _kept(_selected(work, name, 0)) for name in METHODS}),
            seconds_table(json.loads((work / "seconds.json").read_text())),
        ]
    )
    (work / "tables.md").write_text(report + "\n")
    print("\n" + report)


def make_text(settings: Settings, work: Path) -> None:
    """Draw the pool's documents and divide them; divide the target."""
    if (work / "pool").is_dir():
        return
    pool, target = settings.pool, settings.target
    if not pool:
        shards, demo_target = build_demo(work / "python")
        pool, target = tuple(map(str, shards)), (str(demo_target),)
    wanted = draw(target, 1 << 40, seed=0)
    for number, name in enumerate(("target", "cloze", "held-out")):
        write(work / f"{name}.jsonl", wanted[number::3])
    candidates_size, ladder_size = _bytes(settings.candidates), _bytes(settings.ladder_text)
    known = {document.text for document in wanted}
    drawn = [document for document in draw(pool, candidates_size + ladder_size, seed=0) if document.text not in known]
    candidates, rest = _divide(drawn, candidates_size / (candidates_size + ladder_size))
    write(work / "ladder-text.jsonl", pieces(rest, LONGEST))
    _in_one_go(work / "pool", lambda folder: write(folder / "pool.jsonl", pieces(candidates, LONGEST)))


def _bytes(size: str) -> int:
    amount = Budget.parse(size, "a size of text").amount
    assert amount is not None, size
    return amount


def _divide(documents: Sequence[Document], share: float) -> tuple[Sequence[Document], Sequence[Document]]:
    ends = np.cumsum([document.size for document in documents])
    cut = int(np.searchsorted(ends, share * ends[-1]))
    return documents[:cut], documents[cut:]


def make_work_tokenizer(settings: Settings, work: Path) -> Any:
    """The tokenizer that all models share."""
    from transformers import PreTrainedTokenizerFast

    folder = work / "tokenizer"
    if not folder.is_dir():
        texts = [document.text for document in read(work / "ladder-text.jsonl")]
        seen = sum(end <= TOKENIZER_TEXT for end in accumulate(map(len, texts)))
        _in_one_go(folder, make_tokenizer(texts[:seen], settings.vocabulary).save_pretrained)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def make_ladder(settings: Settings, work: Path, tokenizer: Any) -> None:
    """Train the ladder's models, test them, and write `ladder.yaml`."""
    documents = read(work / "ladder-text.jsonl")
    items = make_items([document.text for document in read(work / "cloze.jsonl")], settings.items, seed=0)
    domains = mixtures({document.domain for document in documents}, len(settings.ladder))
    models = []
    for number, (size, mixture) in enumerate(zip(settings.ladder, domains, strict=True)):
        folder = work / "ladder" / f"{number}-width{size.width}-layers{size.layers}"
        if not folder.is_dir():
            model = new_model(size, len(tokenizer), seed=number)
            texts = [document.text for document in documents if document.domain in mixture]
            train(model, pack(tokenizer, texts), size, seed=number)
            found = {"accuracy": accuracy(model, tokenizer, items), "tokens": size.tokens, "domains": sorted(mixture)}
            _in_one_go(folder, partial(_save_rung, model, tokenizer, found))
        found = json.loads((folder / "rung.json").read_text())
        models.append({"name": folder.name, "model": f"ladder/{folder.name}", "score": found["accuracy"]})
        print(f"  {folder.name}: {found['tokens']:,} tokens, accuracy {found['accuracy']:.3f}", flush=True)
    (work / "ladder.yaml").write_text(yaml.safe_dump({"models": models}, sort_keys=False))


def mixtures(domains: set[str], models: int) -> list[set[str]]:
    """The domains that each model learns from: a random half of them, and all for the last model.

    Models that differ in size alone agree on nearly all documents: whatever they read, the larger ones read better.
    The models of the paper are of several makers, whose data differ; so must these.
    """
    generator = np.random.default_rng(0)
    names, half = sorted(domains), math.ceil(len(domains) / 2)
    return [*(set(generator.permutation(names)[:half].tolist()) for _ in range(models - 1)), domains]


def _save_rung(model: Any, tokenizer: Any, found: dict[str, Any], folder: Path) -> None:
    save(model, tokenizer, folder)
    (folder / "rung.json").write_text(json.dumps(found))


def fit_preselect(settings: Settings, work: Path) -> None:
    """Losses, strengths, and the classifier that learns them. Its settings are those for a sample this small."""
    if not (work / "preselect.fitted").exists():
        shares = ("--positive-share", "20%", "--negative-share", "20%")
        training = ("--epochs", "25", "--learning-rate", "0.5", "--dim", "32", "--buckets", "200000")
        sample = ("--ladder", "ladder.yaml", "--sample-size", settings.losses_text, "--stride", str(CONTEXT))
        _dvsel(work, "fit", "preselect", "pool", *sample, *shares, *training, "-o", "preselect.fitted")


def score(work: Path) -> None:
    """Score the candidates by each method; tokens are counted by the models' own tokenizer."""
    last = yaml.safe_load((work / "ladder.yaml").read_text())["models"][-1]
    flags = {
        "preselect": ("--fitted", "preselect.fitted"),
        "dsir": ("--target", "target.jsonl", "--normalise", "length", "--min-words", "0"),
        "perplexity": ("--model", last["model"], "--stride", str(CONTEXT)),
    }
    for name, more in flags.items():
        if not (work / "scores" / name / REPORT).exists():
            _dvsel(work, "score", name, "pool", *more, "--tokenizer", "tokenizer", "-o", f"scores/{name}")


def select(settings: Settings, work: Path) -> None:
    """Keep the budget by each method, and with each seed where that changes the selection."""
    for name, method in METHODS.items():
        for seed in range(settings.seeds if method.varies else 1):
            output = _selected(work, name, seed)
            if not (output / REPORT).exists():
                flags = (*method.flags, "--seed", str(seed), "--budget", settings.budget)
                _dvsel(work, "select", f"scores/{method.scores}", *flags, "-o", str(output.relative_to(work)))


def _selected(work: Path, name: str, seed: int) -> Path:
    return work / "selected" / (f"{name}-{seed}" if METHODS[name].varies else name)


def compare(settings: Settings, work: Path, tokenizer: Any) -> dict[str, list[dict[str, float]]]:
    """Train the student on each selection with each seed: the losses on the held-out target, by method and seed.

    All see each block of their selection once, and equally many blocks: as many as the smallest selection has.
    """
    held_out = [document.text for document in read(work / "held-out.jsonl")]
    blocks = {
        folder: pack(tokenizer, [document.text for document in read(folder)])
        for folder in {_selected(work, name, seed) for name in METHODS for seed in range(settings.seeds)}
    }
    student = dataclasses.replace(settings.student, steps=min(map(len, blocks.values())) // BATCH)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in METHODS}
    (work / "results").mkdir(exist_ok=True)
    for seed in range(settings.seeds):
        for name in METHODS:
            path = work / "results" / f"{name}-{seed}.json"
            if not path.exists():
                model = new_model(student, len(tokenizer), seed=1000 + seed)
                train(model, blocks[_selected(work, name, seed)], student, seed=seed)
                _write_json(path, {"tokens": student.tokens} | target_loss(model, tokenizer, held_out))
            results[name].append(json.loads(path.read_text()))
            print(f"  {name}, seed {seed}: {results[name][-1]['nats_a_token']:.4f} nats a token", flush=True)
    return results


def target_loss(model: Any, tokenizer: Any, texts: Sequence[str]) -> dict[str, float]:
    """The mean loss over all the texts, each read on its own, in windows of the context's length."""
    span = CONTEXT - 1
    tokens = encode(tokenizer, texts)
    windows = [row[first : first + span] for row in tokens for first in range(0, len(row), span)]
    nats = losses(model, [[tokenizer.bos_token_id, *window] for window in windows], [1] * len(windows)).sum()
    size = sum(len(text.encode()) for text in texts)
    return {"nats_a_token": nats / sum(map(len, tokens)), "bits_a_byte": nats / math.log(2) / size}


def _kept(selection: Path) -> dict[str, Any]:
    return dict(json.loads((selection / REPORT).read_text())["domains"])


def _dvsel(work: Path, *words: str) -> None:
    """Run a command of dvsel in `work`."""
    print("  $ dvsel", *words, flush=True)
    if subprocess.run([sys.executable, "-m", "dvsel", *words], cwd=work).returncode:
        sys.exit(f"dvsel {words[0]} failed in {work}; fix the cause, and run the same command again to go on")


def _write_json(path: Path, value: Any) -> None:
    unfinished = path.with_name("." + path.name)
    unfinished.write_text(json.dumps(value))
    unfinished.replace(path)


def _in_one_go(folder: Path, fill: Callable[[Path], Any]) -> None:
    """Make a folder that appears whole or not at all."""
    unfinished = folder.with_name("." + folder.name)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    fill(unfinished)
    unfinished.replace(folder)


@contextlib.contextmanager
def _stage(work: Path, name: str) -> Iterator[None]:
    """Say what begins, and add up the seconds that it takes, over all runs in `work`: by the clock, and of CPU."""
    print(name, flush=True)
    clock, used = time.perf_counter(), sum(os.times()[:4])
    yield
    taken = time.perf_counter() - clock, sum(os.times()[:4]) - used
    path = work / "seconds.json"
    seconds = json.loads(path.read_text()) if path.exists() else {}
    seconds[name] = [before + more for before, more in zip(seconds.get(name, (0, 0)), taken, strict=True)]
    _write_json(path, seconds)


def _claim(work: Path, settings: Settings) -> None:
    """Make the folder, or check that it holds the same run."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / "settings.json"
    asked = json.dumps(dataclasses.asdict(settings), indent=1)
    if path.exists() and path.read_text() != asked:
        sys.exit(f"{work}: holds a run of other settings ({path}); name another folder with -o")
    path.write_text(asked)


def _parse(arguments: Sequence[str] | None) -> tuple[Settings, Path]:
    parser = argparse.ArgumentParser(description="PreSelect worked through on real text.")
    parser.add_argument("pool", nargs="*", help="shards, folders or globs; by default text of this Python")
    parser.add_argument("--target", action="append", default=[], help="documents like the wanted ones; repeatable")
    parser.add_argument("-o", "--output", type=Path, default=Path("work"), help="folder to work in")
    parser.add_argument("--seeds", type=int, help="trainings on each selection")
    parser.add_argument("--budget", help="share of the candidates' tokens that is kept, such as 10%%")
    parser.add_argument("--candidates", help="size of the part of the pool to choose from, such as 12MB")
    parser.add_argument("--quick", action="store_true", help="a minute's run, to see that every step works")
    given = parser.parse_args(arguments)
    if bool(given.pool) != bool(given.target):
        parser.error("give both a pool and a --target, or neither")
    settings: dict[str, Any] = QUICK if given.quick else {}
    chosen = {name: getattr(given, name) for name in ("seeds", "budget", "candidates")}
    settings = settings | {name: value for name, value in chosen.items() if value is not None}
    return Settings(tuple(given.pool), tuple(given.target), **settings), given.output


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"worked.py: {error}")
