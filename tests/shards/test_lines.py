"""Blocks of lines: bytes.split is the truth."""

from __future__ import annotations

import gzip
import io
import os
import threading
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.documents.columns import PAD
from dvsel.errors import UserError
from dvsel.shards import lines
from dvsel.shards.expand import expand
from dvsel.shards.extract import LINES_AT_ONCE
from dvsel.shards.lines import LineReader
from dvsel.storage.places import Shard, atomic_writer, remove

BOM = b"\xef\xbb\xbf"


def split(content: bytes) -> list[bytes]:
    parts = content.removeprefix(BOM).split(b"\n")
    return parts[:-1] if parts[-1] == b"" else parts


def shard(folder: Path | str, content: bytes, name: str = "a.jsonl") -> Shard:
    path = Path(folder) / name
    path.write_bytes(content)
    return expand([str(path)])[0]


def read(source: Shard | io.BytesIO, begin: int = 0, end: int | None = None, block: int = 16) -> list[bytes]:
    found: list[bytes] = []
    with LineReader(source, begin=begin, end=end, block=block) as reader:
        for part in reader:
            assert part.first_row == len(found)
            assert len(part.data) >= part.ends[-1] + PAD
            found += [part[row] for row in range(len(part))]
    return found


CONTENTS = st.lists(st.sampled_from([b"\n", b"\r", b"a", b"longer than a block", BOM])).map(b"".join)


@settings(deadline=None)
@given(content=CONTENTS, block=st.integers(1, 40))
def test_lines_end_at_lf_alone(content: bytes, block: int) -> None:
    with TemporaryDirectory() as folder:
        assert read(shard(folder, content), block=block) == split(content)


@settings(deadline=None)
@given(content=CONTENTS, cuts=st.lists(st.integers(0, 60), max_size=4), block=st.integers(1, 40))
def test_ranges_yield_each_line_once(content: bytes, cuts: list[int], block: int) -> None:
    cuts = sorted({0, len(content), *(min(cut, len(content)) for cut in cuts)})
    with TemporaryDirectory() as folder:
        source = shard(folder, content)
        found = [line for begin, end in pairwise(cuts) for line in read(source, begin, end, block)]
        assert found == read(source)


def test_a_range_owns_the_lines_that_start_in_it(tmp_path: Path) -> None:
    content = b"one\ntwo\n\nthree\nlast"
    source = shard(tmp_path, content)
    starts = [0, *(at + 1 for at, byte in enumerate(content) if byte == 10)]
    for begin in range(len(content)):
        for end in range(begin + 1, len(content) + 1):
            owned = [line for at, line in zip(starts, split(content), strict=True) if begin <= at < end]
            assert read(source, begin, end) == owned


def test_digests_of_ranges_are_of_exactly_these_bytes(tmp_path: Path) -> None:
    content = b"one\ntwo\n\nthree\na very long last line\n"
    source = shard(tmp_path, content)
    for begin in range(len(content)):
        for end in range(begin + 1, len(content) + 1):
            told: list[int] = []
            with LineReader(source, begin=begin, end=end, block=5, on_read=told.append) as reader:
                for _ in reader:
                    pass
            assert reader.digest() == xxhash.xxh3_128_hexdigest(content[begin:end])
            assert sum(told) == end - begin


def test_a_mark_at_the_start_is_no_text_and_elsewhere_is(tmp_path: Path) -> None:
    assert read(shard(tmp_path, BOM + b"a\n" + BOM + b"b\n")) == [b"a", BOM + b"b"]


def test_a_document_of_50_megabytes(tmp_path: Path) -> None:
    long = b"x" * (50 << 20)
    with LineReader(shard(tmp_path, b"before\n" + long + b"\n" + b"after\n" * 3)) as reader:
        sizes = [len(part[row]) for part in reader for row in range(len(part))]
    assert sizes == [6, 50 << 20, 5, 5, 5]


def test_the_buffer_shrinks_after_a_long_line(tmp_path: Path) -> None:
    content = b"x" * 1000 + b"\n" + b"short\n" * 100
    with LineReader(shard(tmp_path, content), block=64) as reader:
        sizes = [len(part.data) for part in reader]
    assert max(sizes) > 1000
    assert sizes[-1] == 64 + PAD + 1


def test_many_short_lines_come_in_parts(tmp_path: Path) -> None:
    content = b"a\n" * (2 * LINES_AT_ONCE + 7)
    for compressed, name in ((content, "a.jsonl"), (gzip.compress(content), "a.jsonl.gz")):
        with LineReader(shard(tmp_path, compressed, name)) as reader:
            assert [(part.first_row, len(part)) for part in reader] == [
                (0, LINES_AT_ONCE), (LINES_AT_ONCE, LINES_AT_ONCE), (2 * LINES_AT_ONCE, 7)
            ]  # fmt: skip
    for cut in (2 * LINES_AT_ONCE - 2, 2 * LINES_AT_ONCE, 2 * LINES_AT_ONCE + 1):  # where a part ends, in a range
        source = shard(tmp_path, content)
        assert len(read(source, 0, cut, 1 << 20)) == (cut + 1) // 2
        assert len(read(source, cut, len(content), 1 << 20)) == 2 * LINES_AT_ONCE + 7 - (cut + 1) // 2


def test_a_file_without_lines_is_refused_before_memory_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_LONGEST_LINE", 1 << 10)
    with pytest.raises(UserError, match=r"a\.jsonl: a line is longer than .*; is it JSON Lines\?"):
        read(shard(tmp_path, b"x" * 2000))


def test_compressed_utf_16_is_refused(tmp_path: Path) -> None:
    content = gzip.compress('{"text": "a"}\n'.encode("utf-16"))
    with pytest.raises(UserError, match="is UTF-16; convert with"):
        read(shard(tmp_path, content, "a.jsonl.gz"))


def test_compressed_twice_is_refused(tmp_path: Path) -> None:
    content = gzip.compress(gzip.compress(b"{}\n"))
    with pytest.raises(UserError, match="holds gzip data instead of lines of JSON; unpack it with gunzip"):
        read(shard(tmp_path, content, "a.jsonl.gz"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_remote_shard(name: str) -> None:
    url = f"memory://{uuid4().hex}/{name}"
    content = b"one\ntwo\nthree"
    with atomic_writer(url) as file:
        file.write(gzip.compress(content) if name.endswith(".gz") else content)
    assert read(expand([url])[0]) == [b"one", b"two", b"three"]
    remove(url)


# --- Streams ---


@settings(deadline=None)
@given(content=CONTENTS, block=st.integers(1, 40))
def test_a_stream_without_a_descriptor(content: bytes, block: int) -> None:
    assert read(io.BytesIO(content), block=block) == split(content)


def test_a_slow_producer_sees_each_line_come_out() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as producer:
        blocks = iter(LineReader(stream))
        for number in range(3):
            producer.write(b"%d\nunfin" % number)
            assert next(blocks)[0] == b"%d" % number
            producer.write(b"ished\n")
            assert next(blocks)[0] == b"unfinished"
        producer.close()
        assert list(blocks) == []


def test_a_fast_producer_fills_blocks() -> None:
    content = b"".join(b"line %d\n" % number for number in range(200_000))
    reading, writing = os.pipe()
    producer = os.fdopen(writing, "wb")
    thread = threading.Thread(target=lambda: (producer.write(content), producer.close()))  # type: ignore[func-returns-value]
    thread.start()
    with os.fdopen(reading, "rb") as stream:
        reader = LineReader(stream)
        found = b"".join(part[row] + b"\n" for part in reader for row in range(len(part)))
    thread.join()
    assert found == content
    assert reader.digest() == xxhash.xxh3_128_hexdigest(content)


def test_a_compressed_stream_is_refused() -> None:
    with pytest.raises(UserError, match="stdin: holds gzip data instead of lines of JSON; unpack it with gunzip"):
        read(io.BytesIO(gzip.compress(b"{}\n")))


def test_arrays_are_writable_for_the_kernels(tmp_path: Path) -> None:
    with LineReader(shard(tmp_path, b"a\n")) as reader:
        (part,) = reader
    assert part.data.flags.writeable
    assert part.starts.dtype == part.ends.dtype == np.int64


def test_real_shards_split_as_python_splits_them(shared_data: Path) -> None:
    for path in sorted((shared_data / "dirty").glob("*.jsonl")):
        content = path.read_bytes()
        if not content.startswith((b"\xff\xfe", b"\x1f\x8b")):
            assert read(expand([str(path)])[0], block=10_000) == split(content)
