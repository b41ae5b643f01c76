"""Pools with vectors of one's choice, written by the flow that writes those of models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dvsel.commands.embed import keep
from dvsel.documents.vectors import Maker, Vectors
from dvsel.runs.requests import Reading

MAKER = Maker("./made-up", "00", "mean", 1, 128)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32)


def write_pool(folder: Path, documents: Sequence[Mapping[str, object]], shards: int = 2) -> Path:
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
    keep(Vectors(vectors, maker), str(folder / "pool"), Reading(), str(folder / name))
    return folder / name


def kept(folder: Path) -> list[int]:
    """The rows of the documents in a folder of shards, by their ids, in the order of the pool."""
    return sorted(int(document["id"]) for document in documents(folder))


def documents(folder: Path) -> list[dict[str, Any]]:
    """The documents in a folder of shards."""
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
