"""The number by which dvsel knows a document: a hash of its text and of what tells it from others of that text.

That is its id. Where it has none (the field is missing or null), it is all of its row: the bytes of a line of JSON,
without white space around it; of a table's row, the names and values of all columns that are not null, whatever their
order. So two documents without an id are the same only where their whole rows are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from dvsel.documents.columns import PAD, Bytes, Kind, Offsets
from dvsel.documents.hashing import Hashes, combine, hash_rows, hash_spans
from dvsel.kernels.jit import kernel
from dvsel.shards.reader import DocumentBlock

if TYPE_CHECKING:
    import pyarrow as pa

_SPACE = np.uint8(32)


def keys(documents: DocumentBlock, text_hash: Hashes, id_field: str) -> Hashes:
    """uint64 (n,): XXH64 of the hashes of text and id; documents that are rows of a table come with whole rows."""
    found = documents.fields[id_field]
    rest = hash_rows(found)
    lacking = np.flatnonzero(found.kind <= Kind.NULL)
    if len(lacking):
        rest[lacking] = _whole_rows(documents, lacking)
    return combine(text_hash, rest)


def _whole_rows(documents: DocumentBlock, rows: Offsets) -> Hashes:
    if documents.lines is None:
        assert documents.table is not None, "the reader was told of the id's field"
        table = documents.table
        return row_hashes(table if len(rows) == len(table) else table.take(_indices(rows)))
    starts, ends = documents.lines.starts[rows], documents.lines.ends[rows]
    _trim(documents.lines.data, starts, ends)
    return hash_spans(documents.lines.data, starts, ends)


@kernel
def _trim(data: Bytes, starts: Offsets, ends: Offsets) -> None:
    """Take white space off both ends of the spans: in JSON, all of what is not beyond a space."""
    for row in range(len(starts)):
        while starts[row] < ends[row] and data[starts[row]] <= _SPACE:
            starts[row] += 1
        while starts[row] < ends[row] and data[ends[row] - 1] <= _SPACE:
            ends[row] -= 1


# --- Rows of tables. ---


def row_hashes(batch: pa.RecordBatch) -> Hashes:
    """uint64 (n,): a hash of the names and values of each row's columns; a null is as no column."""
    hashes = np.zeros(len(batch), np.uint64)
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        names = np.full(len(batch), xxhash.xxh64_intdigest(name.encode()), np.uint64)
        is_there = array.is_valid().to_numpy(zero_copy_only=False)
        hashes += np.where(is_there, combine(names, _value_hashes(array, name)), np.uint64(0))
    return hashes


def _value_hashes(array: Any, name: str) -> Hashes:
    """uint64 (n,): a hash of each value, as text, or of the bytes of a list of numbers."""
    import pyarrow as pa

    from dvsel.shards.arrow_columns import field

    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type) and len(array.dictionary):
        places: Offsets = array.indices.fill_null(0).to_numpy()
        return _value_hashes(array.dictionary, name).take(places, mode="clip")
    if (spans := _number_lists(array)) is not None:
        return hash_spans(*spans)
    path, not_text = name.replace(".", " "), dict[int, str]()  # a dot would descend
    hashes = hash_rows(field(pa.RecordBatch.from_arrays([array], [path]), path, not_text))
    for row in not_text:
        hashes[row] = xxhash.xxh64_intdigest(_stored(array.slice(row, 1)))
    return hashes


def _stored(array: Any) -> bytes:
    """The bytes of one value with strings that are not UTF-8, at any level."""
    import pyarrow as pa

    from dvsel.shards.arrow_types import as_bytes

    if not pa.types.is_nested(array.type):
        return bytes(array.cast(pa.large_binary())[0].as_py())
    return repr(array.view(as_bytes(array.type))[0].as_py()).encode()


def _number_lists(array: Any) -> tuple[Bytes, Offsets, Offsets] | None:
    """The bytes of lists of numbers, and where each list lies; None for other arrays, which are slower to hash."""
    import pyarrow as pa
    import pyarrow.compute as pc

    is_ = pa.types
    if not (is_.is_list(array.type) or is_.is_large_list(array.type) or is_.is_fixed_size_list(array.type)):
        return None
    numbers = array.type.value_type
    values = array.flatten()
    if not (is_.is_integer(numbers) or is_.is_floating(numbers)) or values.null_count:
        return None
    width = numbers.bit_width // 8
    sizes = pc.list_value_length(array).fill_null(0).to_numpy().astype(np.int64) * width
    data = np.zeros(len(values) * width + PAD, np.uint8)
    data[: len(values) * width] = values.to_numpy(zero_copy_only=False).view(np.uint8)
    ends = np.cumsum(sizes)
    return data, ends - sizes, ends


def _indices(rows: Offsets) -> Any:
    import pyarrow as pa

    return pa.array(rows, pa.int64())
