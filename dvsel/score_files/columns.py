"""The columns of a row file as Arrow sees them, and their digests."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import xxhash

from dvsel.score_files.header import Header
from dvsel.score_files.rows import VECTOR

HEADER_KEY, DIGEST_KEY = b"dvsel", b"dvsel.digest"  # of the footer


def schema_of(header: Header) -> pa.Schema:
    """Return the schema of a file with this header."""
    vector = {VECTOR: pa.binary(header.embedding.row)} if header.embedding else {}
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


def header_digest(content: bytes) -> str:
    """Return the XXH3-128 of a header."""
    return xxhash.xxh3_128_hexdigest(content)


def column_digest(column: pa.Array) -> str:
    """Return the XXH3-64 of a column's values in one row group."""
    if pa.types.is_dictionary(column.type):
        # The same strings may be numbered in several ways: digest what the numbers stand for.
        names = column.dictionary.to_pylist()
        hashes = np.array([xxhash.xxh3_64_intdigest(name.encode()) for name in names], np.uint64)
        return xxhash.xxh3_64_hexdigest(hashes[column.indices.to_numpy()])
    width = column.type.bit_width // 8
    return xxhash.xxh3_64_hexdigest(memoryview(column.buffers()[1])[column.offset * width :][: len(column) * width])
