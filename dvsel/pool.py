"""The pool as the flow sees it: batches of documents, each judged usable or not.

A bad line (no JSON object, text missing or no string) ends the job with its place and cause, or is skipped and
counted where the user said so. Empty text is no error: such a document is counted and never selected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dvsel import guests
from dvsel.errors import BadLine, UserError
from dvsel.runs import Reading
from dvsel.scorers import Fitted
from dvsel.shards.causes import Causes
from dvsel.shards.columns import Batch, Column, Kind, Status
from dvsel.shards.documents import DocumentReader, Documents
from dvsel.shards.files import Shard, check_unchanged, open_read
from dvsel.shards.hashing import hash_rows
from dvsel.shards.identity import keys
from dvsel.shards.scorefile import VectorReader
from dvsel.shards.tokens import field_causes
from dvsel.shards.vectors import Vectors


@dataclass(frozen=True, slots=True)
class PoolBatch:
    """Consecutive documents of a shard.

    status: uint8 (n,), a `Status`; the text of a row that is not SCORED is empty. bad: cause by row. key,
    text_hash: uint64 (n,), each document's own number (see `shards.identity`), and its text's. vectors: if it has some.
    """

    documents: Documents
    text: Column
    status: npt.NDArray[np.uint8]
    bad: Causes
    key: npt.NDArray[np.uint64]
    text_hash: npt.NDArray[np.uint64]
    vectors: Vectors | None = None

    def __len__(self) -> int:
        return len(self.text)

    def batch(self, needs: tuple[str, ...] = ()) -> Batch:
        """What a scorer sees."""
        return Batch(self.text, {path: self.documents.fields[path] for path in needs}, self.key, self.vectors)

    def score(self, fitted: Fitted) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """Scores, float32 (n, groups) with NaN where there is none, and the status of each row."""
        scores = guests.scores(fitted, self.batch(fitted.scorer.needs))
        competes = self.status == Status.SCORED
        scores = np.where(np.isfinite(scores) & competes[:, None], scores, np.float32(np.nan))
        unscored = competes & np.isnan(scores).all(axis=1)
        return scores, np.where(unscored, Status.UNSCORED, self.status).astype(np.uint8)


def read_pool(
    reader: DocumentReader, shard: Shard | None, reading: Reading, begin: int = 0, tokens_field: str = ""
) -> Iterator[PoolBatch]:
    """The documents of a shard (None: stdin), judged. Raises BadLine where `reading` says fail."""
    vectors = VectorReader(shard.vectors) if shard and shard.vectors else None
    reader.whole_where_without(reading.id_field)
    for documents in reader:
        text = documents.fields[reading.text_field]
        bad = documents.bad.or_else(_text_causes(text, reading.text_field))
        if tokens_field:
            bad = bad.or_else(Causes.of(field_causes(documents.fields[tokens_field])))
        if bad and reading.on_bad_line == "fail":
            ((row, cause),) = bad.first(1)
            if shard:
                check_unchanged(shard)
            line = _lines_before(shard, begin) + documents.first_row + row + 1
            raise BadLine(shard.url if shard else "stdin", line, cause)
        status = np.where(text.sizes == 0, Status.EMPTY_TEXT, Status.SCORED).astype(np.uint8)
        if bad:
            text = text.without(bad.rows)
            status[bad.rows] = Status.BAD_LINE
        text_hash = hash_rows(text)
        key = keys(documents, text_hash, reading.id_field)
        yield PoolBatch(documents, text, status, bad, key, text_hash, _next(vectors, len(text), shard))


def _next(vectors: VectorReader | None, count: int, shard: Shard | None) -> Vectors | None:
    if vectors is None or (found := vectors.take(count)) is not None:
        return None if vectors is None else found
    assert shard is not None
    raise UserError(f"{shard.url}: has more documents than {shard.vectors} has vectors; embed it again")


def paths_to_read(reading: Reading, *more: str) -> list[str]:
    """The fields to extract, each once, the text first."""
    return list(dict.fromkeys((reading.text_field, reading.id_field, reading.domain_field, *filter(None, more))))


def _text_causes(text: Column, name: str) -> Causes:
    what = {
        Kind.MISSING: f"no field {name!r} (--text-field names another)",
        Kind.NULL: f"field {name!r} is null",
        Kind.STRING: "",
        Kind.NUMBER: f"field {name!r} is a number, not a string",
        Kind.BOOL: f"field {name!r} is true or false, not a string",
        Kind.OTHER: f"field {name!r} is an array or an object, not a string",
    }
    rows = np.flatnonzero(text.kind != Kind.STRING)
    return Causes(rows, text.kind[rows], [what[kind] for kind in Kind])


def _lines_before(shard: Shard | None, begin: int) -> int:
    """How many lines of a plain file end before the byte range that starts at `begin`."""
    if shard is None or not begin:
        return 0
    lines, left = 0, begin
    with open_read(shard.url) as file:
        while left and (piece := file.read(min(left, 1 << 24))):
            lines += piece.count(b"\n")
            left -= len(piece)
    return lines + (not piece.endswith(b"\n"))
