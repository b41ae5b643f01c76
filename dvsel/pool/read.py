"""The pool as the flow sees it: batches of documents, each judged usable or not.

A bad line (no JSON object, text missing or no string) ends the job with its place and cause, or is skipped and
counted where the user said so. Empty text is not an error: such a document is counted and never selected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO

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
from dvsel.score_files.reader import VectorReader
from dvsel.shards.identity import keys
from dvsel.shards.lines import BLOCK, LineReader
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
        """DocumentBlock in which a field is missing or null, by field that was read beside the text."""
        is_document = self.status != Status.BAD_LINE
        return {
            path: int(np.count_nonzero((column.kind <= Kind.NULL) & is_document))
            for path, column in self.documents.fields.items()
        }

    def batch(self, needs: tuple[str, ...] = ()) -> Batch:
        """The batch that a scorer sees."""
        return Batch(self.text, {path: self.documents.fields[path] for path in needs}, self.key, self.vectors)

    def score(self, fitted: Fitted) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """Scores, float32 (n, groups) with NaN where there is none, and the status of each row."""
        scores = checked.scores(fitted, self.batch(fitted.scorer.needs))
        competes = self.status == Status.SCORED
        scores = np.where(np.isfinite(scores) & competes[:, None], scores, np.float32(np.nan))
        unscored = competes & np.isnan(scores).all(axis=1)
        return scores, np.where(unscored, Status.UNSCORED, self.status).astype(np.uint8)


class PoolReader(AbstractContextManager["PoolReader"]):
    """Iterates, once, over the documents of a shard, or of a binary stream of JSON lines, judged.

    reading: where a document's parts lie. fields: dotted paths of further fields that are wanted. tokens_field: one of
    them, whose value must be a token count. text_flag: the option that names the text's field, for messages. The others
    are those of `DocumentReader`.
    Raises BadLine where `reading` says fail, and UserError as `DocumentReader` does.
    """

    def __init__(
        self,
        source: Shard | BinaryIO,
        reading: Reading,
        fields: Sequence[str] = (),
        *,
        tokens_field: str = "",
        text_flag: str = TEXT_FLAG,
        begin: int = 0,
        end: int | None = None,
        whole_rows: bool = False,
        block: int = BLOCK,
        on_read: Callable[[int], None] | None = None,
    ) -> None:
        self._shard = source if isinstance(source, Shard) else None
        self._reading, self._tokens_field, self._text_flag, self._begin = reading, tokens_field, text_flag, begin
        self._reader = DocumentReader(
            source,
            _paths(reading, tokens_field, *fields),
            begin=begin,
            end=end,
            whole_rows=whole_rows,
            block=block,
            on_read=on_read,
        )
        self._reader.whole_where_without(reading.id_field)
        self._reader.join_lists(reading.text_fields)

    def __exit__(self, *_: object) -> None:
        self._reader.__exit__()

    def digest(self) -> str:
        """The digest of what was read, complete after the last batch (see `DocumentReader.digest`)."""
        return self._reader.digest()

    def __iter__(self) -> Iterator[PoolBatch]:
        vectors = VectorReader(self._shard.vectors) if self._shard and self._shard.vectors else None
        return (self._judged(documents, vectors) for documents in self._reader)

    def _judged(self, documents: DocumentBlock, vectors: VectorReader | None) -> PoolBatch:
        columns = {name: documents.fields[name] for name in self._reading.text_fields}
        text = joined(list(columns.values()))
        bad = documents.bad.or_else(_text_causes(columns, text, self._text_flag))
        if self._tokens_field:
            bad = bad.or_else(Causes.of(field_causes(documents.fields[self._tokens_field])))
        if bad and self._reading.on_bad_line == "fail":
            raise self._bad_line(documents, text, bad)
        status = np.where(text.sizes == 0, Status.EMPTY_TEXT, Status.SCORED).astype(np.uint8)
        if bad:
            text = text.without(bad.rows)
            status[bad.rows] = Status.BAD_LINE
        text_hash = hash_rows(text)
        key = keys(documents, text_hash, self._reading.id_field)
        return PoolBatch(documents, text, status, bad, key, text_hash, _next(vectors, len(text), self._shard))

    def _bad_line(self, documents: DocumentBlock, text: Column, bad: Causes) -> BadLine:
        """The error for the first bad line. Raises UserError where the shard changed meanwhile."""
        ((row, cause),) = bad.first(1)
        shard, names = self._shard, self._reading.text_fields
        if shard:
            check_unchanged(shard)
        if row not in documents.bad and text.kind[row] == Kind.MISSING:
            cause = f"{_no_field(names)} ({instead(names[0], names_of(documents, row, shard), self._text_flag)})"
        line = _lines_before(shard, self._begin) + documents.first_row + row + 1
        return BadLine(shard.url if shard else "stdin", line, cause)


def _next(vectors: VectorReader | None, count: int, shard: Shard | None) -> Vectors | None:
    if vectors is None or (found := vectors.take(count)) is not None:
        return None if vectors is None else found
    assert shard is not None
    raise UserError(f"{shard.url}: has more documents than {shard.vectors} has vectors; embed it again")


def why_unread(shard: Shard, reading: Reading, error: BadFile | BadLine) -> str:
    """Cause for which a shard is left out as a whole. Raises the error that ended its reading if it must not be.

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


def _paths(reading: Reading, *more: str) -> list[str]:
    """The fields to extract, each once, the text first."""
    named = (*reading.text_fields, reading.id_field, reading.domain_field)
    return list(dict.fromkeys((*named, *filter(None, more))))


def _no_field(names: Iterable[str]) -> str:
    return f"no field {' or '.join(map(repr, names))}"


def _text_causes(columns: Mapping[str, Column], text: Column, flag: str) -> Causes:
    """Causes of rows without text. columns: the fields that the text is made of, by name."""
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
    """Number of lines of a plain file that end before the byte range that starts at `begin`."""
    if shard is None or not begin:
        return 0
    lines, left = 0, begin
    with open_read(shard.url) as file:
        while left and (piece := file.read(min(left, 1 << 24))):
            lines += piece.count(b"\n")
            left -= len(piece)
    return lines + (not piece.endswith(b"\n"))
