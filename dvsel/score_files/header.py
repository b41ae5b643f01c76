"""The header of a row file: of which shard it speaks, and how its rows were made.

It is kept as JSON, in which each dataclass here is a mapping by the names of its fields. Row files may come from
others, so a header is used only when every value in it has the type that is stated here.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from dvsel.documents.tokens import TokenCounter
from dvsel.documents.vectors import Maker
from dvsel.errors import UserError
from dvsel.options import from_mapping
from dvsel.redact import kept, without_secrets
from dvsel.score_files.rows import Totals
from dvsel.storage.places import Shard

ROWS_A_GROUP = 1 << 17
VECTORS_A_GROUP = 16 << 20  # bytes
DTYPES = ("float16", "float32")
_WIDEST = 1 << 20  # numbers in a vector

T = TypeVar("T")


@dataclass(frozen=True)
class ShardIdentity:
    """The file that was read, and its state: a `Shard` fit to be kept (a secret in its URL is hidden).

    digest: XXH3-128 of its content in hex digits; "" until the shard has been read to its end.
    """

    url: str
    name: str
    format: str
    compression: str
    size: int
    modified: str
    digest: str

    @classmethod
    def of(cls, shard: Shard) -> ShardIdentity:
        """Return the identity of a shard that has not been read."""
        url = without_secrets(shard.url)
        return cls(url, shard.name, shard.format, shard.compression, shard.size, shard.modified, "")

    @property
    def shard(self) -> Shard:
        """The shard, where it lay when it was read."""
        return Shard(self.url, self.name, self.format, self.compression, self.size, self.modified)


@dataclass(frozen=True, kw_only=True)
class ReadingRecord:
    """The options of `dvsel.runs.requests.Reading` with which documents were read.

    The fields are in the order of their names, as they are in the header. Files of the first versions do not state
    on_bad_file; those versions failed.
    """

    domain_field: str
    id_field: str
    on_bad_file: str = "fail"
    on_bad_line: str
    text_field: str


@dataclass(frozen=True)
class Embedding:
    """The vectors of a file of embeddings. width: numbers in a vector. dtype: of `DTYPES`. maker: what made them."""

    width: int
    dtype: str
    maker: Maker

    @property
    def row(self) -> int:
        """Bytes of a vector."""
        return self.width * np.dtype(self.dtype).itemsize


NO_SHARD = ShardIdentity("", "", "", "", 0, "", "")
"""The shard of a header that is a template for several shards."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """The header of a row file.

    shard: the shard that was scored. reading: how its documents were read.
    scorer, fingerprint: the scorer's name with the options that are not default, and its fitted file's fingerprint.
    groups, shares, selector, unscored: as the fitted scorer states them.
    tokens: how tokens were counted, and with what error.
    embedding: of a file that holds vectors and no scores.
    digests: by column, XXH3-64 of its values in each row group; empty in files of the first versions.
    unread: of a file without rows, why its shard cannot be read, and was left out as a whole.
    """

    version: str
    shard: ShardIdentity = NO_SHARD
    scorer: str
    fingerprint: str
    groups: tuple[str, ...]
    shares: tuple[float, ...]
    selector: str
    unscored: str
    reading: ReadingRecord
    tokens: TokenCounter
    totals: Totals = field(default_factory=Totals)
    embedding: Embedding | None = None
    digests: dict[str, list[str]] = field(default_factory=dict)
    unread: str = ""

    @property
    def score_columns(self) -> list[str]:
        """The names of the score's columns."""
        return [] if self.embedding else [f"score.{group}" if group else "score" for group in self.groups]

    @property
    def rows_a_group(self) -> int:
        """Rows that are written at once."""
        return max(VECTORS_A_GROUP // self.embedding.row, 1) if self.embedding else ROWS_A_GROUP

    def to_json(self) -> bytes:
        """Return the header as it is written, without secrets."""
        return json.dumps(kept(dataclasses.asdict(self)), sort_keys=True).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Header:
        """Read a header. Raises ValueError for what no writer of this version or an earlier one wrote."""
        try:
            header = _header(json.loads(content))
        except (AttributeError, KeyError, TypeError, RecursionError, UserError) as error:
            raise ValueError(str(error)) from error
        _require(bool(header.groups) and len(header.shares) == len(header.groups))
        if header.embedding:
            _require(header.embedding.dtype in DTYPES and 0 < header.embedding.width <= _WIDEST)
        return header


def _header(values: dict[str, Any]) -> Header:
    digests = values.pop("digests", {})
    parts: dict[str, Any] = {
        "shard": _typed(ShardIdentity, values["shard"]),
        "reading": _typed(ReadingRecord, values["reading"]),
        "tokens": _typed(TokenCounter, values["tokens"]),
        "totals": _totals(values["totals"]),
        "embedding": _embedding(values.get("embedding")),
    }
    _require(all(isinstance(digest, str) for column in digests.values() for digest in column))
    return dataclasses.replace(_typed(Header, values | parts), digests=digests)


def _typed(cls: type[T], values: Mapping[str, Any]) -> T:
    return from_mapping(cls, values, cls.__name__)


def _embedding(values: dict[str, Any] | None) -> Embedding | None:
    return None if values is None else _typed(Embedding, values | {"maker": Maker.of(values["maker"])})


def _totals(values: Mapping[str, Any]) -> Totals:
    totals = Totals(**values)
    totals.named = [(line, cause) for line, cause in totals.named]
    counts = [totals.rows, totals.docs, totals.tokens, totals.bytes, *(line for line, _ in totals.named)]
    for by_name in (totals.status, totals.bad_lines, totals.absent):
        counts += by_name.values()
    _require(all(type(count) is int and count >= 0 for count in counts))
    _require(all(isinstance(cause, str) for _, cause in totals.named))
    return totals


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError
