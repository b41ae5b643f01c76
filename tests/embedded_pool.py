"""Pools with vectors of one's choice, written by the flow that writes those of models."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvsel import __version__
from dvsel.options import to_mapping
from dvsel.pool import PoolBatch
from dvsel.progress import silent
from dvsel.rowfiles import rows_of, write_beside
from dvsel.runs import Reading
from dvsel.shards.columns import Status
from dvsel.shards.files import expand
from dvsel.shards.scorefile import Embedding, Header, Rows
from dvsel.shards.tokens import BUILT_IN, TokenCounter
from dvsel.shards.vectors import Maker

MAKER = Maker("./made-up", "00", "mean", 1, 128)


@dataclass(frozen=True)
class _Given:
    """Annotates the document of id i with the vector of row i."""

    vectors: np.ndarray
    reading: Reading
    counter: TokenCounter = BUILT_IN
    paths: tuple[str, ...] = ()
    is_slow: bool = False

    def annotate(self, batch: PoolBatch) -> Rows:
        ids = batch.documents.fields["id"]
        vectors = self.vectors[[int(ids[row]) for row in range(len(batch))]]
        status = np.where(np.isnan(vectors).any(axis=1), Status.UNSCORED, batch.status).astype(np.uint8)
        rows = rows_of(batch, np.empty((len(batch), 0), np.float32), status, self.reading, self.counter)
        return dataclasses.replace(rows, vectors=vectors)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write_pool(folder: Path, documents: Sequence[dict[str, object]], shards: int = 2) -> Path:
    """Shards of documents, each with its row for an id; the folder."""
    place = folder / "pool"
    place.mkdir(parents=True)
    for shard in range(shards):
        rows = range(shard * len(documents) // shards, (shard + 1) * len(documents) // shards)
        lines = [json.dumps({"id": str(row), **documents[row]}) + "\n" for row in rows]
        (place / f"{shard}.jsonl").write_text("".join(lines))
    return place


def embed(folder: Path, vectors: np.ndarray, maker: Maker = MAKER, name: str = "emb") -> Path:
    """Files of vectors beside the shards of `folder`/pool; the folder of these."""
    reading = Reading()
    header = Header(
        __version__, {}, "embed made-up", "0" * 32, ("",), (1.0,), "", "no vector", to_mapping(reading),
        dataclasses.asdict(BUILT_IN), embedding=Embedding(vectors.shape[1], str(vectors.dtype), maker),
    )  # fmt: skip
    write_beside(
        expand([str(folder / "pool")]), _Given(vectors, reading), header, str(folder / name), 1, silent, "embedding"
    )
    (folder / name / "recipe.yaml").write_text("command: embed\n")
    return folder / name


def kept(folder: Path) -> list[int]:
    """The rows of the documents in a folder of shards, by their ids, in the order of the pool."""
    return sorted(int(document["id"]) for document in documents(folder))


def documents(folder: Path) -> list[dict[str, object]]:
    """The documents in a folder of shards."""
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
