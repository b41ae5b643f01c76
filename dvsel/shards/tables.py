"""Rows of Parquet and Arrow shards, through pyarrow.

Files are read and never mapped: one that is cut off meanwhile is an error, and no crash. Page checksums of Parquet are
verified where a file has them, batches of Arrow are validated whole. Only the wanted columns are read, in batches of
bounded size however few bytes a file needs to say the same thing often.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from dvsel.errors import BadFile, UserError
from dvsel.shards import arrow_types
from dvsel.shards.arrow_columns import refusal
from dvsel.shards.arrow_values import Sizes, TooManyValues, ordinary, row_sizes
from dvsel.shards.lines import BLOCK
from dvsel.storage.places import Shard, open_read

_ARROW_FILE = b"ARROW1"
_PARQUET_TAIL = 8  # the footer's size and the magic bytes
_BUFFER = 1 << 20
_COPIED_AT_ONCE = 1 << 24
_HELD = 1 << 28
_LARGEST_ROW = 1 << 30
_MOST_ROWS = 1 << 16
_MOST_ROWS_STORED = (1 << 31) - 1  # of a batch, as Arrow's specification advises
_STEP_ROWS = 256  # how many values as large as the largest one may be in memory before their size is known
_STEP_BYTES = 1 << 19


class TableReader(AbstractContextManager["TableReader"]):
    """Iterates over the record batches of a Parquet or Arrow shard.

    paths: the fields that are wanted. whole_rows: whether all columns are read; their types are then those of
    `arrow_values.ordinary`. block: about how many bytes a batch has.
    """

    def __init__(
        self,
        shard: Shard,
        paths: Sequence[str],
        *,
        whole_rows: bool = False,
        block: int = BLOCK,
        on_read: Callable[[int], None] | None = None,
    ) -> None:
        self._shard = shard
        self._paths = paths
        self._whole_rows = whole_rows
        self._block = block
        self._on_read = on_read
        self._told_bytes = 0
        self._hash = xxhash.xxh3_128()
        self._file = open_read(shard.url)

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def digest(self) -> str:
        """See `DocumentReader.digest`."""
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        with self._explained():
            for batch, share in self._parquet() if self._shard.format == "parquet" else self._arrow():
                self._tell(share)
                yield from map(_ordinary, self._parts(batch))
        self._tell(1.0)

    def schema(self) -> pa.Schema:
        """The columns that the shard has. Raises UserError for what iterating would refuse."""
        with self._explained():
            is_parquet = self._shard.format == "parquet"
            schema = pq.read_schema(self._source()) if is_parquet else self._opened_arrow()[1].schema
            self._check(schema)
        return schema

    def _tell(self, share: float) -> None:
        """Report the stored bytes of the share that is done, less those reported before."""
        done = int(min(share, 1.0) * self._shard.size)
        if self._on_read:
            self._on_read(done - self._told_bytes)
        self._told_bytes = done

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            kind = self._shard.format.capitalize()
            cause = " ".join(str(error).split()).rstrip(".")
            is_passing = isinstance(error, OSError) and error.errno and error.errno != errno.EIO
            raise (UserError if is_passing else BadFile)(
                f"{self._shard.url}: broken {kind} file ({cause}); copy the file again"
            ) from error

    def _source(self) -> pa.NativeFile:
        return pa.PythonFile(_Stored(self._file), "r")

    def _check(self, schema: pa.Schema) -> None:
        """Raise UserError for a wanted column that cannot be read, UnicodeDecodeError for a name that is not UTF-8."""
        for path in self._paths:
            if why := refusal(schema, path):
                raise BadFile(f"{self._shard.url}: field {path!r} {why}")
        for name, type_ in zip(schema.names, schema.types, strict=True):
            if self._whole_rows and (why := arrow_types.refusal(type_)):
                raise BadFile(
                    f"{self._shard.url}: column {name!r} is {why}, which dvsel does not copy; write the file without it"
                )

    # --- Parquet. ---

    def _parquet(self) -> Iterator[tuple[pa.RecordBatch, float]]:
        """The batches, and with each the share of the file that is done."""
        with self._opened_parquet() as file:
            self._check(file.schema_arrow)
            self._hash_footer(file.metadata.serialized_size)
            done = 0
            for batch in _joined(self._steps(file), self._block // 2):
                done += len(batch)
                whole = _with_dictionaries(batch, file.schema_arrow) if self._whole_rows else batch
                yield whole, done / file.metadata.num_rows
            if done != file.metadata.num_rows:  # pyarrow passes over pages of a kind that it does not know
                raise pa.ArrowInvalid(f"{done} rows where its footer states {file.metadata.num_rows}")

    def _opened_parquet(self) -> pq.ParquetFile:
        # Not pre-buffered: that would hold all that was read of the file.
        return pq.ParquetFile(self._source(), buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True)

    def _steps(self, file: pq.ParquetFile) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Small batches and their bytes; the first has one row, as only what was decoded tells how large rows are."""
        paths, leaves = self._paths, [file.schema.column(number).path for number in range(len(file.schema.names))]
        has_columns = self._whole_rows or any(f"{leaf}.".startswith(f"{path}.") for leaf in leaves for path in paths)
        columns = None if self._whole_rows else paths
        for step in file.iter_batches(1 if has_columns else _MOST_ROWS, columns=columns, use_threads=False):
            step = _ordinary(step, keeps_text=False)
            size = step.nbytes
            if has_columns:
                file.reader.set_batch_size(min(max(_STEP_BYTES * len(step) // max(size, 1), 1), _STEP_ROWS))
            yield step, size

    def _hash_footer(self, size: int) -> None:
        length = self._file.seek(0, 2)
        self._file.seek(max(0, length - size - _PARQUET_TAIL))
        self._hash.update(length.to_bytes(8, "little") + self._file.read())

    # --- Arrow. ---

    def _arrow(self) -> Iterator[tuple[pa.RecordBatch, float]]:
        """The batches, and with each the share of the file that is done."""
        source, file = self._opened_arrow()
        self._check(file.schema)
        source, file = self._opened_arrow(self._options(file.schema))
        if isinstance(file, pa.RecordBatchFileReader):
            for number in range(file.num_record_batches):
                yield _validated(file.get_batch(number)), (number + 1) / file.num_record_batches
        else:
            for batch in file:
                yield _validated(batch), source.tell() / self._shard.size
        self._file.seek(0)
        while piece := self._file.read(_COPIED_AT_ONCE):
            self._hash.update(piece)

    def _opened_arrow(self, options: pa.ipc.IpcReadOptions | None = None) -> tuple[pa.NativeFile, Any]:
        self._file.seek(0)
        is_file = self._file.read(len(_ARROW_FILE)) == _ARROW_FILE
        source = self._source()
        return source, (pa.ipc.open_file if is_file else pa.ipc.open_stream)(source, options=options)

    def _options(self, schema: pa.Schema) -> pa.ipc.IpcReadOptions:
        """Return options that read the wanted columns, or one of any: a batch without columns has no rows."""
        heads = {path.partition(".")[0] for path in self._paths}
        wanted = [number for number, name in enumerate(schema.names) if self._whole_rows or name in heads]
        return pa.ipc.IpcReadOptions(included_fields=wanted or [0][: len(schema)], use_threads=False)

    def _parts(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The batch in parts of about `block` bytes."""
        if len(batch) > _MOST_ROWS_STORED:
            raise pa.ArrowInvalid(f"a batch of {len(batch)} rows")
        is_larger = any(
            arrow_types.is_encoded(type_) or arrow_types.is_weightless(type_) for type_ in batch.schema.types
        )
        if not is_larger and batch.nbytes <= self._block and len(batch) <= _MOST_ROWS:
            yield batch
            return
        for first in range(0, len(batch), _MOST_ROWS):
            rows = batch.slice(first, _MOST_ROWS)
            sizes, at = _sizes(rows), 0
            if sizes.max(initial=0) > _LARGEST_ROW:
                raise BadFile(f"{self._shard.url}: a row is larger than {_LARGEST_ROW >> 30} GiB; leave it out")
            ends = np.cumsum(sizes)
            while at < len(rows):
                end = int(np.searchsorted(ends, ends[at] - sizes[at] + self._block, "right"))
                yield rows.slice(at, max(end - at, 1))
                at = max(end, at + 1)


def _sizes(rows: pa.RecordBatch) -> Sizes:
    """Bytes that each row takes, float64 (n,)."""
    try:
        return sum(map(row_sizes, rows.columns), np.zeros(len(rows)))
    except TooManyValues:
        if len(rows) < 2:
            raise
        half = len(rows) // 2
        return np.concatenate((_sizes(rows.slice(0, half)), _sizes(rows.slice(half))))


class _Stored:
    """A shard's bytes for Arrow: those that there were when it was opened, or fewer.

    Some writers make one batch of a whole file; a large piece is therefore copied to a temporary file and mapped
    there, where no one else can change it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, 2)
        self._file.seek(0)

    @property
    def closed(self) -> bool:
        """True where it cannot be read any more."""
        return self._file.closed

    def close(self) -> None:
        """Leave the file to its owner."""

    def tell(self) -> int:
        """The place of the next byte to be read."""
        return self._file.tell()

    def seek(self, place: int, whence: int = 0) -> int:
        """Go to another place."""
        return self._file.seek(place, whence)

    def read(self, size: int = -1) -> bytes | memoryview:
        """The next bytes; never more memory than the file has bytes, whatever it says of itself."""
        left = max(self._size - self._file.tell(), 0)
        size = left if size < 0 else min(size, left)
        return self._file.read(size) if size <= _HELD else _copied(self._file, size)


def _copied(file: BinaryIO, size: int) -> memoryview:
    """The next bytes of a file, in a temporary one of which nothing is left on disk."""
    with tempfile.TemporaryFile(prefix="dvsel-") as copy:
        while size and (piece := file.read(min(size, _COPIED_AT_ONCE))):
            try:
                copy.write(piece)
                copy.flush()
            except OSError as error:
                raise UserError(
                    f"{tempfile.gettempdir()}: no room for a copy of a large batch ({error.strerror}); set TMPDIR"
                ) from error
            size -= len(piece)
        return memoryview(mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ))


def _ordinary(batch: pa.RecordBatch, keeps_text: bool = True) -> pa.RecordBatch:
    """The batch with columns that are `ordinary`."""
    if not any(map(arrow_types.is_encoded, batch.schema.types)):
        return batch
    return _with_columns(batch, [ordinary(column, keeps_text) for column in batch.columns])


def _with_dictionaries(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with dictionaries for the columns of strings that have some in the schema: as large as they may be,
    each of the small batches would have carried one."""
    if not any(map(arrow_types.is_text_dictionary, schema.types)):
        return batch
    pairs = zip(batch.columns, schema.types, strict=True)
    return _with_columns(
        batch, [pc.cast(column, type_) if arrow_types.is_text_dictionary(type_) else column for column, type_ in pairs]
    )


def _with_columns(batch: pa.RecordBatch, columns: list[Any]) -> pa.RecordBatch:
    fields = [field.with_type(column.type) for field, column in zip(batch.schema, columns, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields, batch.schema.metadata))


def _joined(steps: Iterator[tuple[pa.RecordBatch, int]], size: int) -> Iterator[pa.RecordBatch]:
    """The rows of small batches in batches of about `size` bytes."""
    waiting: list[pa.RecordBatch] = []
    bytes_ = rows = 0
    for step, more in steps:
        waiting.append(step)
        bytes_ += more
        rows += len(step)
        if bytes_ >= size or rows >= _MOST_ROWS:
            yield from _one(waiting)
            waiting, bytes_, rows = [], 0, 0
    yield from _one(waiting)


def _one(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Join batches to one."""
    if len(batches) < 2 or not batches[0].num_columns:
        return batches
    return pa.Table.from_batches(batches).combine_chunks().to_batches()  # type: ignore[no-any-return]


def _validated(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, once all of its offsets, indices and sizes are known to lie inside their buffers.

    Not its strings: those that are not UTF-8 are bad rows, and no bad file.
    """
    for column in batch.columns:
        storage = column.storage if arrow_types.is_extension(column.type) else column
        # pyarrow's view of runs may be shorter than the runs are
        plain = storage.type if arrow_types.has_runs(storage.type) else arrow_types.as_bytes(storage.type)
        (storage if storage.type == plain else storage.view(plain)).validate(full=True)
    return batch
