"""The pool as the flow sees it: batches of documents, each judged usable or not.

A bad line (no JSON object, text missing or no string) ends the job with its place and cause, or is skipped and
counted where the user said so. Empty text is no error: such a document is counted and never selected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dvsel.documents.causes import Causes
from dvsel.documents.columns import Batch, Column, Kind, Status
from dvsel.documents.hashing import hash_rows
from dvsel.documents.tokens import field_causes
from dvsel.documents.vectors import Vectors
from dvsel.errors import BadFile, BadLine, UserError
from dvsel.interface import checked
from dvsel.interface.scorer import Fitted
from dvsel.pool.fields import instead, names_of
from dvsel.runs.requests import Reading
from dvsel.score_files.score_file import VectorReader
from dvsel.shards.identity import keys
from dvsel.shards.lines import LineReader
from dvsel.shards.reader import DocumentBlock, DocumentReader
from dvsel.shards.texts import joined
from dvsel.storage.places import Shard, check_unchanged, open_read

TEXT_FLAG, TARGET_FLAG = "--text-field", "--target-text-field"


@dataclass(frozen=True, slots=True)
class PoolBatch:
    """Consecutive documents of a shard.

    status: uint8 (n,), a `Status`; the text of a row that is not SCORED is empty. bad: cause by row. key,
    text_hash: uint64 (n,), each document's own number (see `shards.identity`), and its text's. vectors: if it has some.
    """

    documents: DocumentBlock
    text: Column
    status: npt.NDArray[np.uint8]
    bad: Causes
    key: npt.NDArray[np.uint64]
    text_hash: npt.NDArray[np.uint64]
    vectors: Vectors | None = None

    def __len__(self) -> int:
        return len(self.text)

    @property
    def absent(self) -> dict[str, int]:
        """By field that was read beside the text, the documents in which it is missing or null."""
        is_document = self.status != Status.BAD_LINE
        return {
            path: int(np.count_nonzero((column.kind <= Kind.NULL) & is_document))
            for path, column in self.documents.fields.items()
        }

    def batch(self, needs: tuple[str, ...] = ()) -> Batch:
        """What a scorer sees."""
        return Batch(self.text, {path: self.documents.fields[path] for path in needs}, self.key, self.vectors)

    def score(self, fitted: Fitted) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """Scores, float32 (n, groups) with NaN where there is none, and the status of each row."""
        scores = checked.scores(fitted, self.batch(fitted.scorer.needs))
        competes = self.status == Status.SCORED
        scores = np.where(np.isfinite(scores) & competes[:, None], scores, np.float32(np.nan))
        unscored = competes & np.isnan(scores).all(axis=1)
        return scores, np.where(unscored, Status.UNSCORED, self.status).astype(np.uint8)


def read_pool(
    reader: DocumentReader,
    shard: Shard | None,
    reading: Reading,
    begin: int = 0,
    tokens_field: str = "",
    text_flag: str = TEXT_FLAG,
) -> Iterator[PoolBatch]:
    """The documents of a shard (None: stdin), judged. Raises BadLine where `reading` says fail.

    text_flag: the option that names the text's field, for messages.
    """
    vectors = VectorReader(shard.vectors) if shard and shard.vectors else None
    names = reading.text_fields
    reader.whole_where_without(reading.id_field)
    reader.join_lists(names)
    for documents in reader:
        columns = {name: documents.fields[name] for name in names}
        text = joined(list(columns.values()))
        bad = documents.bad.or_else(_text_causes(columns, text, text_flag))
        if tokens_field:
            bad = bad.or_else(Causes.of(field_causes(documents.fields[tokens_field])))
        if bad and reading.on_bad_line == "fail":
            ((row, cause),) = bad.first(1)
            if shard:
                check_unchanged(shard)
            if row not in documents.bad and text.kind[row] == Kind.MISSING:
                cause = f"{_no_field(names)} ({instead(names[0], names_of(documents, row, shard), text_flag)})"
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


def why_unread(shard: Shard, reading: Reading, error: BadFile | BadLine) -> str:
    """Why a shard is left out as a whole; raises the error that ended its reading where it is not.

    Damage of compressed data may show as a bad line, long before the checksum at the end.
    """
    if reading.on_bad_file == "skip":
        if isinstance(error, BadFile):
            return str(error)
        if shard.compression:
            try:
                with LineReader(shard) as reader:
                    for _ in reader:
                        pass
            except BadFile as damage:
                return str(damage)
    raise error


def paths_to_read(reading: Reading, *more: str) -> list[str]:
    """The fields to extract, each once, the text first."""
    named = (*reading.text_fields, reading.id_field, reading.domain_field)
    return list(dict.fromkeys((*named, *filter(None, more))))


def _no_field(names: Iterable[str]) -> str:
    return f"no field {' or '.join(map(repr, names))}"


def _text_causes(columns: Mapping[str, Column], text: Column, flag: str) -> Causes:
    """Why rows have no text. columns: the fields that it is out of, by name."""
    bad = _causes(
        text,
        {
            Kind.MISSING: f"{_no_field(columns)} ({flag} names another)",
            Kind.NULL: f"field {' or '.join(map(repr, columns))} is null",
        },
    )
    for name, column in columns.items():
        what = {Kind.NUMBER: "a number", Kind.BOOL: "true or false", Kind.OTHER: "an array or an object"}
        why = {kind: f"field {name!r} is {value}, not a string or strings" for kind, value in what.items()}
        bad = bad.or_else(_causes(column, why))
    return bad


def _causes(column: Column, what: Mapping[Kind, str]) -> Causes:
    rows = np.flatnonzero(np.isin(column.kind, list(what)))
    return Causes(rows, column.kind[rows], [what.get(kind, "") for kind in Kind])


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
