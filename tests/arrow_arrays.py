"""An array of three rows of every Arrow type that there is, and of each type inside the others; files of tables."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dvsel.documents.columns import PAD, Column, Kind
from dvsel.shards.expand import expand
from dvsel.storage.places import Shard, atomic_writer

_INDICES = pa.array([0, 1, 0], pa.int8())
_DAY = datetime.date(2024, 1, 2)
_TEXTS = ["a", None, "a string longer than a view holds inside"]
_LISTS = [["a"], None, []]


def simple() -> dict[str, Any]:
    """One array of each type that dvsel reads, by name."""
    money = [decimal.Decimal("1.50"), None, decimal.Decimal("-2.25")]
    arrays = {
        "null": pa.nulls(3),
        "bool": pa.array([True, None, False]),
        "float16": pa.array([np.float16(0.5), None, np.float16(2)], pa.float16()),
        "float32": pa.array([0.1, None, float("nan")], pa.float32()),
        "float64": pa.array([0.1, None, float("inf")]),
        "fixed_size_binary": pa.array([b"abc", None, b"def"], pa.binary(3)),
        "date32": pa.array([_DAY, None, datetime.date(1, 1, 1)]),
        "date64": pa.array([_DAY, None, datetime.date(1, 1, 1)], pa.date64()),
        "dictionary": pa.array(["a", None, "a"]).dictionary_encode(),
        "dictionary of numbers": pa.array([1, None, 1]).dictionary_encode(),
        "dictionary with a null": pa.DictionaryArray.from_arrays(_INDICES, pa.array(["a", None])),
        "dictionary of lists": pa.DictionaryArray.from_arrays(_INDICES, pa.array([["a"], ["b"]])),
        "runs": pc.run_end_encode(pa.array(["a", "a", None])),
        "list": pa.array(_LISTS),
        "large_list": pa.array(_LISTS, pa.large_list(pa.string())),
        "fixed_size_list": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2)),
        "list_view": pa.array(_LISTS, pa.list_view(pa.string())),
        "large_list_view": pa.array(_LISTS, pa.large_list_view(pa.string())),
        "struct": pa.array([{"n": 1}, None, {"n": None}]),
        "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, None, bytes(16)], pa.binary(16))),
        "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", None, "1"])),
        "bool8": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, None, 1], pa.int8())),
        "opaque": pa.ExtensionArray.from_storage(pa.opaque(pa.string(), "t", "v"), pa.array(_TEXTS)),
        "tensor": pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.int8(), [2]), pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2))
        ),
    }  # fmt: skip
    arrays |= {
        f"{sign}int{bits}": pa.array([1, None, 3], f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)
    }
    arrays |= {f"decimal{bits}": pa.array(money, getattr(pa, f"decimal{bits}")(5, 2)) for bits in (32, 64, 128, 256)}
    arrays |= {name: pa.array(_TEXTS, getattr(pa, name)()) for name in ("string", "large_string", "string_view")}
    arrays |= {
        name: pa.array(_TEXTS).cast(pa.binary()).cast(getattr(pa, name)())
        for name in ("binary", "large_binary", "binary_view")
    }
    arrays |= {f"time32 {unit}": pa.array([1, None, 3], pa.time32(unit)) for unit in ("s", "ms")}
    arrays |= {f"time64 {unit}": pa.array([1, None, 3], pa.time64(unit)) for unit in ("us", "ns")}
    for unit in ("s", "ms", "us", "ns"):
        arrays[f"timestamp {unit}"] = pa.array([1, None, 3], pa.timestamp(unit))
        arrays[f"timestamp {unit}, Berlin"] = pa.array([1, None, 3], pa.timestamp(unit, "Europe/Berlin"))
        arrays[f"duration {unit}"] = pa.array([1, None, -3], pa.duration(unit))
    return arrays


def refused() -> dict[str, Any]:
    """One array of each type that dvsel refuses, by name."""
    places = pa.array([0, 0, 1], pa.int32())
    return {
        "sparse_union": pa.UnionArray.from_sparse(_INDICES, [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])]),
        "dense_union": pa.UnionArray.from_dense(_INDICES, places, [pa.array([1, 2]), pa.array(["a"])]),
        "month_day_nano_interval": pa.array([(1, 2, 3), None, (0, 0, 1)], pa.month_day_nano_interval()),
    }


def inside(name: str, array: Any) -> Iterator[tuple[str, Any]]:
    """The array inside a struct, a list, a list view, a map, and runs; and as the values of a dictionary."""
    ends = pa.array([0, 1, 1, 3], pa.int32())
    yield f"struct of {name}", pa.StructArray.from_arrays([array], ["x"])
    yield f"list of {name}", pa.ListArray.from_arrays(ends, array)
    yield (
        f"view of {name}",
        pa.ListViewArray.from_arrays(pa.array([0, 1, 1], pa.int32()), pa.array([1, 0, 2], pa.int32()), array),
    )
    yield f"map of {name}", pa.MapArray.from_arrays(ends, pa.array(["a", "b", "c"]), array)
    yield f"runs of {name}", pa.RunEndEncodedArray.from_arrays(pa.array([1, 2, 3], pa.int32()), array)
    if not isinstance(array.type, pa.BaseExtensionType | pa.DictionaryType):  # pyarrow reads no such file
        yield f"dictionary of {name}", pa.DictionaryArray.from_arrays(_INDICES, array)


def all_of(arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays, and each of them inside the others."""
    return arrays | {label: one for name, array in arrays.items() for label, one in inside(name, array)}


def store(base: str, table: pa.Table, name: str) -> Shard:
    """Write a table in the format that the name says."""
    place = f"{base}/{name}"
    with atomic_writer(place) as file:
        if name.endswith(".parquet"):
            pq.write_table(table, file)
        elif name.startswith("file"):
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
        else:
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
    return expand([place])[0]


def values(column: Column) -> list[Any]:
    """A column as Python objects."""

    def value(row: int) -> Any:
        content, kind = column[row], column.kind[row]
        return None if kind == Kind.NULL else content.decode() if kind == Kind.STRING else json.loads(content)

    assert len(column.data) >= column.offsets[-1] + PAD
    assert column.offsets.dtype == np.int64
    return [value(row) for row in range(len(column))]
