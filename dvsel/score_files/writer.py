"""Writes row files: row groups of one size and the same bytes, however the rows arrive."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from dvsel.score_files.columns import DIGEST_KEY, HEADER_KEY, column_digest, header_digest, schema_of
from dvsel.score_files.header import Header
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import COLUMNS, VECTOR, Rows, Totals
from dvsel.storage.places import Pending


class ScoreFileWriter:
    """Write one row file; it appears under its name only when the `with` block ends without error, after `finish`.

    Row groups hold `Header.rows_a_group` rows, however the rows arrive.
    """

    def __init__(self, url: str, header: Header) -> None:
        self._header = header
        self._totals = Totals()
        self._schema = schema_of(header)
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
        """Add the rows of a row file that speaks of the next part of the shard."""
        self._totals.add(part.header.totals)
        for rows in part.rows((*COLUMNS, *([VECTOR] if self._header.embedding else []))):
            self._buffer(rows)

    def _buffer(self, rows: Rows) -> None:
        scores = list(rows.score.T[: len(self._header.score_columns)])
        arrays = [_fixed_length_array(rows.vectors)] if self._header.embedding else []
        numbers = [*scores, rows.key, rows.text_hash, rows.tokens, rows.bytes, rows.status]
        arrays += [_number_array(column) for column in numbers]
        arrays += [pa.DictionaryArray.from_arrays(_number_array(rows.domain), _string_array(rows.domains))]
        self._pending.append(pa.Table.from_arrays(arrays, schema=self._schema))
        self._pending_rows += len(rows)
        while self._pending_rows >= self._header.rows_a_group:
            self._flush(self._header.rows_a_group)

    def _flush(self, count: int) -> None:
        table = pa.concat_tables(self._pending).unify_dictionaries()
        group = _with_sorted_domains(table.slice(0, count))
        for name, digests in self._digests.items():
            digests.append(column_digest(group.column(name).chunk(0)))
        self._writer.write_table(group, row_group_size=count)
        rest = table.slice(count)
        self._pending, self._pending_rows = ([rest], len(rest)) if len(rest) else ([], 0)

    def finish(self, digest: str, url: str = "") -> None:
        """State the digest of the shard that was read; to be called last inside the `with` block.

        url: the place that the file gets, if not that which it was begun for.
        """
        if self._pending_rows:
            self._flush(self._pending_rows)
        shard = dataclasses.replace(self._header.shard, digest=digest)
        header = dataclasses.replace(self._header, shard=shard, totals=self._totals, digests=self._digests)
        content = header.to_json()
        self._writer.add_key_value_metadata({HEADER_KEY: content, DIGEST_KEY: header_digest(content)})
        self._url = url or self._url

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._writer.close()
            if kind is None:
                self._target.commit(self._url)
        finally:
            self._target.discard()


# Arrays are made from buffers and not by pa.array, whose first call imports pandas wherever that is installed: half a
# second in every worker.


def _number_array(column: npt.NDArray[Any]) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(column))
    return pa.Array.from_buffers(pa.from_numpy_dtype(column.dtype), len(column), [None, buffer])


def _fixed_length_array(vectors: npt.NDArray[Any]) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(vectors))
    return pa.Array.from_buffers(pa.binary(vectors.shape[1] * vectors.itemsize), len(vectors), [None, buffer])


def _string_array(names: Sequence[str]) -> pa.Array:
    encoded = [name.encode() for name in names]
    ends = np.cumsum([0, *(len(name) for name in encoded)], dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(names), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))])


def _with_sorted_domains(table: pa.Table) -> pa.Table:
    """Return one chunk, with a dictionary that depends on the rows alone and not on how they arrived."""
    at = table.schema.get_field_index("domain")
    strings = table.column(at).cast(pa.string()).combine_chunks()
    names = strings.unique().sort()
    encoded = pa.DictionaryArray.from_arrays(pa.compute.index_in(strings, names).cast(pa.int32()), names)
    return table.set_column(at, table.schema.field(at), pa.chunked_array([encoded])).combine_chunks()
