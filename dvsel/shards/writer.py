"""Output shards: the kept documents of one input shard, in pieces of a bounded size.

Lines go out byte for byte, each with one LF, compressed as the input is; rows of Parquet and Arrow shards go
out as Parquet, with the input's schema and page checksums. Pieces are called `stem-00000.suffix`,
`stem-00001.suffix` and so on. All appear at the end, the first one last: where the first piece exists, the shard is
complete. The same input and choice give the same bytes. Nothing kept means no file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from isal import isal_zlib

from dvsel import private
from dvsel.documents.columns import PAD, Bytes, Offsets
from dvsel.errors import UserError
from dvsel.kernels.jit import kernel
from dvsel.kernels.simd import WIDTH, copy
from dvsel.shards.expand import split_name
from dvsel.shards.lines import Lines
from dvsel.storage.manifest import record
from dvsel.storage.places import Pending, Shard, join

_ZSTD_LEVEL = 3
_GZIP_LEVEL = 3  # of isal: six times as fast as zlib at its level 6, for files that are an eighth larger
_ROW_GROUP = 64 << 20
_LF = np.uint8(10)
_PARQUET_ERRORS = (pa.ArrowException, OSError)  # a full disk is a UserError by then

Mask = npt.NDArray[np.bool_]


def first_piece(folder: str, shard: Shard) -> str:
    """Return the place of an input shard's first output piece, which appears after all others."""
    return join(folder, _piece(shard, 0))


def _piece(shard: Shard, number: int) -> str:
    stem, suffix = split_name(shard.name)
    return f"{stem}-{number:05}{'.parquet' if shard.format == 'arrow' else suffix}"


class ShardWriter(AbstractContextManager["ShardWriter"]):
    """Write the kept documents of one input shard below `folder`.

    cap: uncompressed bytes of a piece; a single longer line is still written whole.
    Pieces appear when the block ends well, and are dropped when it does not.
    Raises UserError where something cannot be written.
    """

    def __init__(self, folder: str, shard: Shard, cap: int) -> None:
        self._folder = folder
        self._shard = shard
        self._cap = cap
        self._pieces: list[Pending] = []
        self._sink: _LineSink | _TableSink | None = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._end_piece()
                for piece in reversed(self._pieces):
                    piece.commit()
        finally:
            if self._sink:
                self._sink.drop()
            for piece in self._pieces:
                piece.discard()

    def write_lines(self, lines: Lines, keep: Mask) -> None:
        """Append the lines where `keep`, bool (n,), is true."""
        rows = np.flatnonzero(keep)
        ends = np.cumsum(lines.ends[rows] - lines.starts[rows] + 1)
        written = 0
        while written < len(rows):
            sink = self._line_sink()
            before = int(ends[written - 1]) if written else 0
            fitting = int(np.searchsorted(ends, before + self._cap - sink.size, "right"))
            if fitting == written and not sink.size:
                fitting += 1
            if fitting > written:
                sink.write(gather(lines, rows[written:fitting]))
            written = fitting
            if written < len(rows):
                self._end_piece()

    def write_table(self, batch: pa.RecordBatch, keep: Mask) -> None:
        """Append the rows where `keep`, bool (n,), is true; pieces end between batches."""
        kept = batch.filter(pa.array(keep))
        if not len(kept):
            return
        if self._sink and self._sink.size + kept.nbytes > self._cap:
            self._end_piece()
        self._table_sink(kept.schema).write(kept)

    def _line_sink(self) -> _LineSink:
        if self._sink is None:
            self._sink = _LineSink(self._begin_piece(), self._shard.compression)
        assert isinstance(self._sink, _LineSink), "a shard has lines or rows"
        return self._sink

    def _table_sink(self, schema: pa.Schema) -> _TableSink:
        if self._sink is None:
            self._sink = _TableSink(self._begin_piece(), schema, self._shard.url)
        assert isinstance(self._sink, _TableSink), "a shard has lines or rows"
        return self._sink

    def _begin_piece(self) -> IO[bytes]:
        name = _piece(self._shard, len(self._pieces))
        record(self._folder, [name])
        piece = Pending(join(self._folder, name))
        self._pieces.append(piece)
        return piece.file

    def _end_piece(self) -> None:
        if self._sink:
            self._sink.finish()
            self._pieces[-1].close()
            self._sink = None


class _LineSink:
    """Bytes to a file, compressed. size: bytes before compression."""

    def __init__(self, file: IO[bytes], compression: str) -> None:
        self.size = 0
        self._file = file
        self._compressor = _compressor(compression)

    def write(self, data: memoryview) -> None:
        self.size += len(data)
        self._file.write(self._compressor.compress(data) if self._compressor else data)

    def finish(self) -> None:
        if self._compressor:
            self._file.write(self._compressor.flush())

    def drop(self) -> None:
        """Do nothing: a plain file needs no end."""


def _compressor(compression: str) -> Any:
    match compression:
        case "zstd":
            return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj()
        case "gzip":
            return isal_zlib.compressobj(_GZIP_LEVEL, wbits=31)
    return None


class _TableSink:
    """Rows to a Parquet file, in groups of about `_ROW_GROUP` bytes. size: bytes of the rows in memory."""

    def __init__(self, file: IO[bytes], schema: pa.Schema, place: str) -> None:
        self.size = 0
        self._place = place
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_size = 0
        self._schema = schema
        with self._explained():
            self._writer = _parquet_writer(file, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        self.size += batch.nbytes
        self._waiting.append(batch)
        self._waiting_size += batch.nbytes
        if self._waiting_size >= _ROW_GROUP:
            self._write_group()

    def finish(self) -> None:
        if self._waiting:
            self._write_group()
        self._writer.close()

    def drop(self) -> None:
        """Give up what was written."""
        private.abandon(self._writer)

    def _write_group(self) -> None:
        with self._explained():
            table = pa.Table.from_batches(self._waiting).unify_dictionaries()
            self._writer.write_table(table, row_group_size=max(len(table), 1))
        self._waiting, self._waiting_size = [], 0

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what Parquet cannot hold into a UserError that names the columns."""
        try:
            yield
        except _PARQUET_ERRORS as error:
            columns = ", ".join(map(repr, _refused(self._schema, self._waiting))) or "the rows"
            cause = " ".join(str(error).split()).rstrip(".")
            raise UserError(
                f"{self._place}: Parquet cannot hold {columns} ({cause}); write the shard without it"
            ) from error


def _parquet_writer(file: IO[bytes], schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(file, schema, compression="zstd", compression_level=_ZSTD_LEVEL, write_page_checksum=True)


def _refused(schema: pa.Schema, batches: list[pa.RecordBatch]) -> Iterator[str]:
    """Yield the names of the columns that cannot be written."""
    for number, field in enumerate(schema):
        try:
            with _parquet_writer(io.BytesIO(), pa.schema([field])) as writer:
                for batch in batches:
                    writer.write_batch(batch.select([number]))
        except _PARQUET_ERRORS:
            yield field.name


def gather(lines: Lines, rows: npt.NDArray[np.int64]) -> memoryview:
    """Return the bytes of these rows, each followed by one LF."""
    size = int((lines.ends[rows] - lines.starts[rows]).sum()) + len(rows)
    out = np.empty(size + PAD, np.uint8)
    _gather(lines.data, lines.starts, lines.ends, rows, out)
    return out.data[:size]


@kernel
def _gather(data: Bytes, starts: Offsets, ends: Offsets, rows: Offsets, out: Bytes) -> None:
    to = 0
    for row in rows:
        size = ends[row] - starts[row]
        for place in range(0, size, WIDTH):
            copy(out, to + place, data, starts[row] + place)
        to += size
        out[to] = _LF
        to += 1
