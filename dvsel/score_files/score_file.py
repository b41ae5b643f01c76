"""Score files and files of embeddings: one Parquet file beside each shard, row-aligned.

Row i speaks of line i + 1 of a JSON Lines shard, or of row i of a Parquet one; a line that was skipped has a row
too. A score file is written under a temporary name and renamed when it is whole, so its existence is the mark that
its shard is done. Columns are plain and uncompressed: selection reads them at the speed of a copy.

    score        float32, NaN for a document without a usable score; with several groups score.NAME, one each;
                 in a file of embeddings instead vector, bytes of fixed length: float16 or float32, little-endian
    key          uint64, XXH64 of text and id: the document's own number, which noise and ties come from
    text_hash    uint64, XXH64 of the text
    tokens       uint32
    bytes        uint32, of the text in UTF-8
    status       uint8, a `Status`
    domain       dictionary of strings, "" for none

The footer's key `dvsel` holds a `Header` as JSON, and `dvsel.digest` its XXH3-128. Each column of each row group has a
digest in the header, which is compared when the group is read: a damaged file is refused before any of its rows is
used. Parquet's own checksums of pages are there too, for other readers. Score files may come from others: whatever they
say, what they name lies inside the output.

A vector is bytes since Parquet's lists of numbers are read 50 times as slowly:
`numpy.frombuffer(table["vector"].chunk(0).buffers()[1], "f2").reshape(-1, width)` gives all of a row group.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import xxhash

from dvsel.documents.causes import Causes
from dvsel.documents.columns import Status
from dvsel.documents.tokens import TokenCounter
from dvsel.documents.vectors import Maker, Vectors
from dvsel.errors import UserError
from dvsel.redact import kept
from dvsel.storage.places import Pending, is_own, is_remote, open_read

SUFFIX = ".dvsel.parquet"
SUFFIXES = (SUFFIX, ".dvsel.rows")
"""The other is of files in a run's own folder, where `**/*.parquet` of other programs must not find them."""
ROWS_A_GROUP = 1 << 17
VECTORS_A_GROUP = 16 << 20  # bytes
NAMED_BAD_LINES = 100
COLUMNS = ("key", "text_hash", "tokens", "bytes", "status", "domain")
ROWS_AT_ONCE = 1 << 15  # what is computed of so many rows fits a processor's cache
DTYPES = ("float16", "float32")
_WIDEST = 1 << 20  # numbers in a vector
_KEY, _DIGEST = b"dvsel", b"dvsel.digest"
_SHARD = frozenset({"url", "name", "format", "compression", "size", "modified", "digest"})
_VECTOR = "vector"


def suffix_in(folder: str) -> str:
    """How the names of row files end in a folder."""
    return SUFFIXES[1] if is_own(folder) else SUFFIX


@dataclass(frozen=True)
class Embedding:
    """What a file of embeddings holds. width: numbers in a vector. dtype: of `DTYPES`."""

    width: int
    dtype: str
    maker: Maker

    @property
    def row(self) -> int:
        """Bytes of a vector."""
        return self.width * np.dtype(self.dtype).itemsize


@dataclass
class Totals:
    """Sums over the rows of a score file; those of consecutive parts add up.

    docs, tokens, bytes: of the documents that have a score. status: rows by the name of their `Status`.
    bad_lines: skipped lines by cause. named: line number and cause of the first `NAMED_BAD_LINES` of them.
    absent: by field that was read beside the text, the documents in which it is missing or null.
    """

    rows: int = 0
    docs: int = 0
    tokens: int = 0
    bytes: int = 0
    status: dict[str, int] = field(default_factory=dict)
    bad_lines: dict[str, int] = field(default_factory=dict)
    named: list[tuple[int, str]] = field(default_factory=list)
    absent: dict[str, int] = field(default_factory=dict)

    def add(self, other: Totals) -> None:
        """Add the totals of the rows that follow."""
        self.named += [(self.rows + line, cause) for line, cause in other.named]
        del self.named[NAMED_BAD_LINES:]
        self.rows += other.rows
        self.docs += other.docs
        self.tokens += other.tokens
        self.bytes += other.bytes
        self.status = dict(sorted((Counter(self.status) + Counter(other.status)).items()))
        self.bad_lines = dict(sorted((Counter(self.bad_lines) + Counter(other.bad_lines)).items()))
        self.absent = dict(sorted((Counter(self.absent) + Counter(other.absent)).items()))

    @classmethod
    def of(cls, rows: Rows, bad: Mapping[int, str]) -> Totals:
        """The totals of some rows; bad: cause by row."""
        causes = Causes.of(bad)
        scored = rows.status == Status.SCORED
        values, counts = np.unique(rows.status, return_counts=True)
        return cls(
            len(rows),
            int(scored.sum()),
            int(rows.tokens[scored].sum(dtype=np.int64)),
            int(rows.bytes[scored].sum(dtype=np.int64)),
            {Status(value).name.lower(): int(count) for value, count in zip(values, counts, strict=True)},
            causes.counts(),
            [(row + 1, cause) for row, cause in causes.first(NAMED_BAD_LINES)],
        )


@dataclass(frozen=True)
class Header:
    """What a score file says of itself.

    shard: url, name, format, compression, size, modified and digest of the shard that was scored.
    scorer, fingerprint: the scorer's name with the options that are not default, and its fitted file's fingerprint.
    groups, shares, selector, unscored: as the fitted scorer states them.
    reading: the options of reading that the score depends on.
    tokens: how tokens were counted, and with what error.
    embedding: of a file that holds vectors and no scores.
    digests: by column, XXH3-64 of its values in each row group; empty in files of the first versions.
    unread: of a file without rows, why its shard cannot be read, and was left out as a whole.
    """

    version: str
    shard: dict[str, Any]
    scorer: str
    fingerprint: str
    groups: tuple[str, ...]
    shares: tuple[float, ...]
    selector: str
    unscored: str
    reading: dict[str, Any]
    tokens: dict[str, Any]
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


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of a score file.

    count: n. score: float32 (n, groups); key, text_hash: uint64 (n,); tokens, bytes: uint32 (n,); status: uint8 (n,);
    domain: int32 (n,), indices into `domains`. What was not asked for is empty. vectors: float16 or float32 (n, width).
    The score of a row of embeddings is 0, and NaN where it has none.
    """

    count: int
    score: npt.NDArray[np.float32]
    key: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    text_hash: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    tokens: npt.NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    bytes: npt.NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    status: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    domain: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    domains: list[str] = field(default_factory=list)
    vectors: npt.NDArray[Any] = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def __len__(self) -> int:
        return self.count

    def part(self, first: int, last: int) -> Rows:
        """The rows from `first` up to `last`, or to the end."""
        cut = slice(first, last)
        return Rows(
            min(last, self.count) - first,
            self.score[cut],
            self.key[cut],
            self.text_hash[cut],
            self.tokens[cut],
            self.bytes[cut],
            self.status[cut],
            self.domain[cut],
            self.domains,
            self.vectors[cut],
        )


def _schema(header: Header) -> pa.Schema:
    vector = {_VECTOR: pa.binary(header.embedding.row)} if header.embedding else {}
    types = (
        dict.fromkeys(header.score_columns, pa.float32())
        | vector
        | {
            "key": pa.uint64(),
            "text_hash": pa.uint64(),
            "tokens": pa.uint32(),
            "bytes": pa.uint32(),
            "status": pa.uint8(),
            "domain": pa.dictionary(pa.int32(), pa.string()),
        }
    )
    return pa.schema([pa.field(name, type_, nullable=False) for name, type_ in types.items()])


class ScoreFileWriter:
    """Write one score file; it appears under its name only when the `with` block ends well, after `finish`.

    Row groups hold `Header.rows_a_group` rows, however the rows arrive.
    """

    def __init__(self, url: str, header: Header) -> None:
        self._header = header
        self._totals = Totals()
        self._schema = _schema(header)
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._digests: dict[str, list[str]] = {name: [] for name in self._schema.names}
        self._url = url

    def __enter__(self) -> ScoreFileWriter:
        self._target = Pending(self._url)
        self._writer = pq.ParquetWriter(
            self._target.file,
            self._schema,
            compression="NONE",
            use_dictionary=["domain"],
            write_statistics=False,
            write_page_checksum=True,
            store_schema=True,
        )
        return self

    def append(self, rows: Rows, bad: Mapping[int, str]) -> None:
        """Add rows; bad: cause by row of this call, for rows of status BAD_LINE."""
        self._totals.add(Totals.of(rows, bad))
        self._buffer(rows)

    def count_absent(self, absent: Mapping[str, int]) -> None:
        """Add documents without a field, by field, to the totals."""
        self._totals.add(Totals(absent=dict(absent)))

    def absorb(self, part: ScoreFile) -> None:
        """Add the rows of a score file that speaks of the next part of the shard."""
        self._totals.add(part.header.totals)
        for rows in part.rows((*COLUMNS, *([_VECTOR] if self._header.embedding else []))):
            self._buffer(rows)

    def _buffer(self, rows: Rows) -> None:
        scores = list(rows.score.T[: len(self._header.score_columns)])
        arrays = [_of_fixed_length(rows.vectors)] if self._header.embedding else []
        plain = [*scores, rows.key, rows.text_hash, rows.tokens, rows.bytes, rows.status]
        arrays += [_numbers(column) for column in plain]
        arrays += [pa.DictionaryArray.from_arrays(_numbers(rows.domain), _strings(rows.domains))]
        self._pending.append(pa.Table.from_arrays(arrays, schema=self._schema))
        self._pending_rows += len(rows)
        while self._pending_rows >= self._header.rows_a_group:
            self._flush(self._header.rows_a_group)

    def _flush(self, count: int) -> None:
        table = pa.concat_tables(self._pending).unify_dictionaries()
        group = _sorted_domains(table.slice(0, count))
        for name, digests in self._digests.items():
            digests.append(_digest(group.column(name).chunk(0)))
        self._writer.write_table(group, row_group_size=count)
        rest = table.slice(count)
        self._pending, self._pending_rows = ([rest], len(rest)) if len(rest) else ([], 0)

    def finish(self, digest: str, url: str = "") -> None:
        """State the digest of the shard that was read; to be called last inside the `with` block.

        url: the place that the file gets, if not that which it was begun for.
        """
        if self._pending_rows:
            self._flush(self._pending_rows)
        shard = self._header.shard | {"digest": digest}
        header = dataclasses.replace(self._header, shard=shard, totals=self._totals, digests=self._digests)
        content = json.dumps(kept(dataclasses.asdict(header)), sort_keys=True).encode()
        self._writer.add_key_value_metadata({_KEY: content, _DIGEST: xxhash.xxh3_128_hexdigest(content)})
        self._url = url or self._url

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._writer.close()
            if kind is None:
                self._target.commit(self._url)
        finally:
            self._target.discard()


# Not pa.array: at its first call it imports pandas wherever that is installed, half a second in every worker.


def _numbers(column: npt.NDArray[Any]) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(column))
    return pa.Array.from_buffers(pa.from_numpy_dtype(column.dtype), len(column), [None, buffer])


def _of_fixed_length(vectors: npt.NDArray[Any]) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(vectors))
    return pa.Array.from_buffers(pa.binary(vectors.shape[1] * vectors.itemsize), len(vectors), [None, buffer])


def _strings(names: Sequence[str]) -> pa.Array:
    encoded = [name.encode() for name in names]
    ends = np.cumsum([0, *(len(name) for name in encoded)], dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(names), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))])


def _sorted_domains(table: pa.Table) -> pa.Table:
    """One chunk, with a dictionary that depends on the rows alone and not on how they arrived."""
    at = table.schema.get_field_index("domain")
    plain = table.column(at).cast(pa.string()).combine_chunks()
    names = plain.unique().sort()
    encoded = pa.DictionaryArray.from_arrays(pa.compute.index_in(plain, names).cast(pa.int32()), names)
    return table.set_column(at, table.schema.field(at), pa.chunked_array([encoded])).combine_chunks()


def _digest(column: pa.Array) -> str:
    """XXH3-64 of a column's values in one row group; of strings, whose dictionary may vary, of their hashes."""
    if pa.types.is_dictionary(column.type):
        names = column.dictionary.to_pylist()
        hashes = np.array([xxhash.xxh3_64_intdigest(name.encode()) for name in names], np.uint64)
        return xxhash.xxh3_64_hexdigest(hashes[column.indices.to_numpy()])
    width = column.type.bit_width // 8
    return xxhash.xxh3_64_hexdigest(memoryview(column.buffers()[1])[column.offset * width :][: len(column) * width])


def _header(content: bytes) -> Header:
    """Raises ValueError, KeyError or TypeError for what no writer of score files wrote."""
    values = json.loads(content)
    totals = Totals(**values["totals"])
    totals.named = [(line, cause) for line, cause in totals.named]
    exact = {"groups": tuple(values["groups"]), "shares": tuple(values["shares"]), "totals": totals}
    if embedding := values.get("embedding"):
        exact["embedding"] = Embedding(**embedding | {"maker": Maker.of(embedding["maker"])})
    header = Header(**values | exact)
    texts = [header.scorer, header.fingerprint, header.selector, header.unscored, header.unread, *header.groups]
    texts += [value for name, value in header.shard.items() if name != "size"] + list(header.reading.values())
    TokenCounter.of(header.tokens)
    is_whole = set(header.shard) == _SHARD and bool(header.groups) and len(header.shares) == len(header.groups)
    if not is_whole or not all(isinstance(text, str) for text in texts) or not isinstance(header.shard["size"], int):
        raise ValueError
    if header.embedding and not (header.embedding.dtype in DTYPES and 0 < header.embedding.width <= _WIDEST):
        raise ValueError
    return header


def _is_inside(name: str) -> bool:
    """Whether a shard's name stays below the folder that it is put in."""
    parts = name.split("/")
    return bool(name) and not any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts)


class ScoreFile:
    """A score file that is there. Raises UserError for one that is damaged, or that dvsel did not write."""

    def __init__(self, url: str) -> None:
        self.url = url
        with self._open() as file, self._explained():
            self._rows_there = int(file.metadata.num_rows)
            metadata = file.metadata.metadata or {}
            try:
                content = metadata[_KEY]
                self.header = _header(content)
            except (KeyError, TypeError, ValueError, RecursionError) as error:
                raise self._foreign() from error
            if self.header.digests and metadata.get(_DIGEST, b"").decode() != xxhash.xxh3_128_hexdigest(content):
                raise self._damaged("its header is not what was written")
            if self._rows_there != self.header.totals.rows or not file.schema_arrow.equals(_schema(self.header)):
                raise self._damaged("its columns are not what its header says")
        if not _is_inside(str(self.header.shard["name"])):
            raise UserError(f"{url}: names a shard outside every pool ({self.header.shard['name']!r}); do not use it")

    def __len__(self) -> int:
        return self._rows_there

    def rows(self, columns: Sequence[str] = COLUMNS) -> Iterator[Rows]:
        """All rows in order, `ROWS_AT_ONCE` at a time, with the scores and the columns named ("vector" too).

        The file is open only meanwhile: a pool has many.
        """
        wanted = [*self.header.score_columns, *columns]
        if self.header.embedding and "status" not in columns:
            wanted.append("status")
        with self._open() as file:
            for group in range(file.num_row_groups):
                with self._explained():
                    table = file.read_row_group(group, columns=wanted, use_threads=False)
                    self._check(table, group)
                    rows = self._rows(table)
                for first in range(0, len(rows), ROWS_AT_ONCE):
                    yield rows.part(first, first + ROWS_AT_ONCE)

    def _check(self, table: pa.Table, group: int) -> None:
        """Raise UserError unless the columns of a row group are what was written."""
        for name in table.column_names if self.header.digests else ():
            if _digest(table.column(name).chunk(0)) != self.header.digests[name][group]:
                raise self._damaged(f"column {name!r} is not what was written")

    def _open(self) -> pq.ParquetFile:
        with self._explained():
            source = open_read(self.url) if is_remote(self.url) else self.url
            return pq.ParquetFile(source, memory_map=False, pre_buffer=is_remote(self.url))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what Arrow says of a broken file into a UserError."""
        try:
            yield
        except UserError:
            raise
        except pa.ArrowInvalid as error:
            raise self._foreign() from error
        except OSError as error:
            if error.errno:
                raise UserError(f"{self.url}: cannot be read ({os.strerror(error.errno)}); check the file") from error
            raise self._damaged(" ".join(str(error).split())) from error
        except (pa.ArrowException, KeyError, IndexError, ValueError, UnicodeDecodeError) as error:
            raise self._damaged(" ".join(str(error).split()) or type(error).__name__) from error

    def _foreign(self) -> UserError:
        return UserError(f"{self.url}: no score file of dvsel; make one with this version's `dvsel score`")

    def _damaged(self, cause: str) -> UserError:
        return UserError(f"{self.url}: damaged ({cause}); copy it again, or score its shard again")

    def _rows(self, table: pa.Table) -> Rows:
        names = [name for name in table.column_names if name not in ("domain", _VECTOR)]
        plain = {name: table.column(name).chunk(0).to_numpy() for name in names}
        scores = [plain.pop(name) for name in self.header.score_columns]
        if self.header.embedding:
            scores = [np.where(plain["status"] == Status.SCORED, np.float32(0), np.float32(np.nan))]
            if _VECTOR in table.column_names:
                plain["vectors"] = _vectors(table.column(_VECTOR).chunk(0), self.header.embedding)
        if "domain" in table.column_names:
            domain = table.column("domain").chunk(0)
            plain |= {"domain": domain.indices.to_numpy(), "domains": domain.dictionary.to_pylist()}
        return Rows(len(table), np.stack(scores, axis=1) if len(scores) > 1 else scores[0][:, None], **plain)


def _vectors(column: pa.Array, embedding: Embedding) -> npt.NDArray[Any]:
    """The column's memory, as numbers."""
    numbers, offset = len(column) * embedding.width, column.offset * embedding.row
    return np.frombuffer(column.buffers()[1], embedding.dtype, numbers, offset).reshape(-1, embedding.width)


class VectorReader:
    """Reads a file of embeddings beside its shard, any number of rows at a time."""

    def __init__(self, url: str) -> None:
        self._file = ScoreFile(url)
        assert self._file.header.embedding is not None
        self._maker = self._file.header.embedding.maker
        self._rows = self._file.rows((_VECTOR,))
        self._left = np.empty((0, self._file.header.embedding.width), self._file.header.embedding.dtype)

    def take(self, count: int) -> Vectors | None:
        """The next `count` rows; None where there are not so many."""
        parts, missing = [self._left], count - len(self._left)
        while missing > 0 and (rows := next(self._rows, None)) is not None:
            parts.append(rows.vectors)
            missing -= len(rows)
        found = np.concatenate(parts) if len(parts) > 1 else parts[0]
        self._left = found[count:]
        return Vectors(found[:count], self._maker) if len(found) >= count else None
