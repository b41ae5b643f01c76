"""Forecasts for `--dry-run`: the pool's size, and its documents and tokens estimated from the heads of some shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dvsel.documents.tokens import BUILT_IN
from dvsel.errors import BadFile
from dvsel.pool.read import PoolReader
from dvsel.runs.requests import Reading
from dvsel.storage.places import Shard

_HEADS = 8


@dataclass(frozen=True)
class Forecast:
    """documents, tokens: estimates. recipe: the resolved options."""

    shards: int
    bytes: int
    documents: int
    tokens: int
    recipe: str

    def lines(self) -> list[str]:
        """The summary."""
        return [
            f"{self.shards:,} shards, {self.bytes:,} bytes stored",
            f"about {self.documents:,} documents and {self.tokens:,} tokens, from the heads of some shards",
            "nothing was written; the run would be:",
            *self.recipe.splitlines(),
        ]


def forecast(shards: Sequence[Shard], reading: Reading, recipe: str) -> Forecast:
    """Look at the first block of a few shards."""
    read = documents = tokens = 0

    def count(stored: int) -> None:
        nonlocal read
        read += stored

    for shard in shards[:: max(len(shards) // _HEADS, 1)]:
        try:
            with PoolReader(shard, reading, on_read=count) as pool:
                for batch in pool:
                    documents += len(batch)
                    tokens += int(BUILT_IN.count(batch.text, None).sum())
                    break
        except BadFile:
            if reading.on_bad_file == "fail":
                raise
    total = sum(shard.size for shard in shards)
    scale = total / read if read else 0
    return Forecast(len(shards), total, round(documents * scale), round(tokens * scale), recipe)
