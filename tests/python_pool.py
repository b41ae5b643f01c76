"""A pool of several formats, its target and its scores, as tests of the Python interface have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import corpus
import dvsel

OPTIONS: dict[str, Any] = {"buckets": 1000, "min_words": 20, "normalise": "length"}


def write_pool(folder: Path) -> Path:
    """Three shards, with an empty text and a short one, and a target beside them."""
    documents = [*corpus.pool(), {"id": "empty", "text": ""}, {"id": "short", "text": "too short"}]
    for number, suffix in enumerate(("jsonl", "jsonl.zst", "parquet")):
        corpus.write(folder / "pool" / f"{number}.{suffix}", [one for one in documents[number::3] if "domain" in one])
    corpus.write(folder / "pool" / "3.jsonl", documents[-2:])
    corpus.write(folder / "target.jsonl", corpus.target())
    return folder / "pool"


def score_pool(pool: Path) -> Path:
    """A folder of its scores."""
    dvsel.score("dsir", pool, target=pool.parent / "target.jsonl", output=pool.parent / "scores", **OPTIONS)
    return pool.parent / "scores"


def rows(found: Any) -> str:
    """All of a dataset, in which one NaN is like another."""
    return repr(found.to_table().to_pylist())
