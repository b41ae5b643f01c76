"""Damaged Parquet and Arrow files: what comes of one is data or a UserError, in little memory, and never a crash.

Each execution damages a valid file and reads it, as fields and as whole rows, which then go out as JSON and as Parquet.
`DVSEL_FUZZ` sets how many there are. They run in processes of their own, since a crash is one of the answers;
`python tests/fuzz/test_table_files.py SEED 1` runs one again.
"""

from __future__ import annotations

import io
import os
import random
import resource
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import arrow_arrays
from commands import environment
from dvsel.errors import UserError
from dvsel.shards.expand import expand
from dvsel.shards.json_rows import check_columns, json_lines
from dvsel.shards.reader import DocumentReader
from dvsel.shards.writer import ShardWriter
from dvsel.storage.places import Shard

EXECUTIONS = int(os.environ.get("DVSEL_FUZZ", "400"))
MOST_MEMORY = 5 << 29  # beyond what importing takes; a page of Parquet states its own size, below 2 GiB
PATHS = ("text", "id", "meta.lang", "tags", "odd")
EXTREMES = (0, 1, -1, 2**15, 2**31 - 1, -(2**31), 2**30)


# --- Files. ---


def _table(odd: Any) -> pa.Table:
    rows = range(len(odd))
    return pa.table(
        {
            "text": [f"text {row} " * 20 for row in rows],
            "id": pa.array(rows),
            "meta": [{"lang": "en", "n": row} if row % 3 else None for row in rows],
            "tags": [["a", None] * row for row in rows],
            "odd": odd,
        }
    )


def _parquet(options: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    texts = ["a", None, "a longer text"] * 10
    decimals = pa.array([1, None, 3] * 10).cast(pa.decimal128(30, 2))
    table = _table(pa.array(texts).dictionary_encode()).append_column("price", decimals)
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def _arrow(odd: Any, is_file: bool, compression: str | None) -> bytes:
    sink, table = io.BytesIO(), _table(odd)
    new = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        for _ in range(2):  # not slices: of maps of runs, pyarrow writes these wrongly
            writer.write_table(table)
    return sink.getvalue()


def files() -> list[tuple[str, bytes]]:
    """Valid files, each with the format that its name states."""
    options: list[dict[str, Any]] = [
        {"compression": codec, "data_page_version": version, "write_page_checksum": codec == "zstd"}
        for codec in ("none", "snappy", "zstd", "gzip", "lz4", "brotli")
        for version in ("1.0", "2.0")
    ]
    options += [
        {"use_dictionary": False, "column_encoding": {"text": name}, "compression": "none"}
        for name in ("DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "PLAIN")
    ]
    options.append({"row_group_size": 7, "data_page_size": 64, "write_page_index": True})
    found = [("parquet", _parquet(each)) for each in options]
    codecs = [None, "lz4", "zstd"]
    for number, array in enumerate(arrow_arrays.all_of(arrow_arrays.simple()).values()):
        found.append(("arrow", _arrow(array, bool(number % 2), codecs[number % 3])))
    return found


# --- Damage. ---


def damaged(content: bytes, dice: random.Random) -> bytes:
    """The content after one to four accidents."""
    made = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 4))):
        dice.choice(ACCIDENTS)(made, dice)
    return bytes(made)


def _flip(content: bytearray, dice: random.Random) -> None:
    if content:
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)


def _cut(content: bytearray, dice: random.Random) -> None:
    if not dice.randrange(4):
        del content[dice.randrange(len(content) + 1) :]


def _splice(content: bytearray, dice: random.Random) -> None:
    begin, to = dice.randrange(len(content) + 1), dice.randrange(len(content) + 1)
    piece = content[begin : begin + dice.choice((1, 8, 64, 500))]
    content[to : to + len(piece) * dice.randrange(2)] = piece


def _overwrite(content: bytearray, dice: random.Random) -> None:
    number = dice.choice(EXTREMES)
    piece = struct.pack("<i", number) if dice.randrange(2) else struct.pack("<q", number << dice.choice((0, 8, 32)))
    at = dice.randrange(len(content) + 1) // 4 * 4
    content[at : at + len(piece)] = piece


ACCIDENTS: tuple[Callable[[bytearray, random.Random], None], ...] = (_flip, _flip, _cut, _splice, _overwrite)


# --- One execution. ---


def execute(format_: str, content: bytes, folder: Path) -> None:
    """Read a file in each way. Raises what is no UserError."""
    place = folder / f"a.{format_}"
    place.write_bytes(content)
    shard = expand([str(place)])[0]
    for step in (_read_fields, _print_rows, _write_rows):
        try:
            step(shard, folder)
        except UserError as error:
            assert str(place) in str(error) and "; " in str(error), error


def _read_fields(shard: Shard, _: Path) -> None:
    with DocumentReader(shard, PATHS, block=2000) as reader:
        for found in reader:
            for column in found.fields.values():
                assert len(column.data) >= column.offsets[-1] and (np.diff(column.offsets) >= 0).all()


def _print_rows(shard: Shard, _: Path) -> None:
    check_columns(shard)
    with DocumentReader(shard, [], whole_rows=True) as reader:
        for found in reader:
            assert found.table is not None
            for _line in json_lines(found.table, shard.url):
                pass


def _write_rows(shard: Shard, folder: Path) -> None:
    with (
        ShardWriter(str(folder / "out"), shard, 1 << 30) as writer,
        DocumentReader(shard, [], whole_rows=True) as reader,
    ):
        for found in reader:
            assert found.table is not None
            writer.write_table(found.table, np.arange(len(found.table)) % 2 == 0)


def main(first: int, count: int) -> None:
    """Run executions; the number of each is on stdout before it starts."""
    there = files()
    before = _peak()
    with tempfile.TemporaryDirectory() as name:
        for seed in range(first, first + count):
            print(seed, flush=True)
            dice = random.Random(seed)
            format_, content = dice.choice(there if seed % 2 else there[:16])  # half of them Parquet
            execute(format_, damaged(content, dice), Path(name))
            assert _peak() - before < MOST_MEMORY, f"{_peak() - before >> 20} MB"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


# --- Many. ---


def failures(executions: int, processes: int = 2) -> list[str]:
    """What went wrong, each with its seed."""
    share = -(-executions // processes)
    running = []
    for number in range(processes):
        words = [sys.executable, __file__, str(number * share), str(share)]
        running.append(
            subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    found = []
    for process in running:
        out, err = process.communicate(timeout=60 + executions)
        if process.returncode:
            found.append(f"seed {out.split()[-1] if out else '?'}: exit code {process.returncode}\n{err[-3000:]}")
    return found


def test_a_damaged_table_is_data_or_a_user_error() -> None:
    assert failures(EXECUTIONS) == []


@pytest.mark.slow
def test_many_damaged_tables() -> None:
    assert failures(max(EXECUTIONS, 100_000)) == []


def test_the_files_are_valid(tmp_path: Path) -> None:
    for format_, content in files():
        (tmp_path / f"a.{format_}").write_bytes(content)
        for step in (_read_fields, _print_rows, _write_rows):
            step(expand([str(tmp_path / f"a.{format_}")])[0], tmp_path)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), int(sys.argv[2]))
    except Exception:
        traceback.print_exc()
        sys.exit(1)
