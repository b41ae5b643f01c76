"""Decompression: every byte of whole files, and an error for every other one."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import xxhash
import zstandard

from dvsel.errors import UserError
from dvsel.shards import decode
from dvsel.shards.decode import Reader
from dvsel.shards.expand import expand
from dvsel.storage.places import Shard

TEXT = b"".join(b'{"text": "line %d of the file"}\n' % number for number in range(200))
SUFFIX = {"": "", "gzip": ".gz", "zstd": ".zst"}


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {"": bytes, "gzip": gzip.compress, "zstd": zstd}


def shard(folder: Path, content: bytes, compression: str) -> Shard:
    path = folder / f"a.jsonl{SUFFIX[compression]}"
    path.write_bytes(content)
    return expand([str(path)])[0]


def read(source: Shard, step: int = 1 << 16) -> bytes:
    buffer, out = memoryview(bytearray(step)), b""
    with Reader(source) as reader:
        while count := reader.readinto(buffer):
            out += buffer[:count]
    return out


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("step", [1, 1000, 1 << 20])
def test_all_bytes_come_out(tmp_path: Path, compression: str, step: int) -> None:
    assert read(shard(tmp_path, COMPRESS[compression](TEXT), compression), step) == TEXT


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_frames_follow_each_other(tmp_path: Path, compression: str) -> None:
    cuts = [0, 1, 1, 50, 5000, len(TEXT)]
    parts = [TEXT[begin:end] for begin, end in pairwise(cuts)]
    joined = b"".join(map(COMPRESS[compression], parts))
    assert read(shard(tmp_path, joined, compression)) == TEXT


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_frames_end_anywhere_in_a_piece(tmp_path: Path, compression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = COMPRESS[compression](TEXT) + COMPRESS[compression](TEXT[::-1])
    for piece in range(1, 40):
        monkeypatch.setattr(decode, "_PIECE", piece)
        assert read(shard(tmp_path, joined, compression)) == TEXT + TEXT[::-1]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_file_cut_anywhere_is_truncated(tmp_path: Path, compression: str) -> None:
    whole = COMPRESS[compression](TEXT)
    for size in range(1, len(whole)):
        with pytest.raises(UserError, match=r"truncated: the last .* does not end; copy the file again"):
            read(shard(tmp_path, whole[:size], compression))


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_second_frame_cut_anywhere_is_an_error(tmp_path: Path, compression: str) -> None:
    frame = COMPRESS[compression](b"short")
    for size in range(1, len(frame)):
        with pytest.raises(UserError, match="truncated"):
            read(shard(tmp_path, frame + frame[:size], compression))


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_changed_byte_never_passes(tmp_path: Path, compression: str) -> None:
    whole = COMPRESS[compression](TEXT)
    draw = random.Random(0)
    for at in range(20, len(whole)):
        changed = bytearray(whole)
        changed[at] ^= draw.randrange(1, 256)
        with pytest.raises(UserError, match=r"corrupt|truncated|other bytes"):
            read(shard(tmp_path, bytes(changed), compression))


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_rubbish_after_the_end_is_an_error(tmp_path: Path, compression: str) -> None:
    with pytest.raises(UserError, match="has other bytes after the end of its"):
        read(shard(tmp_path, COMPRESS[compression](TEXT) + b"rubbish" * 20, compression))


@pytest.mark.parametrize("compression", COMPRESS)
def test_an_empty_file_is_an_empty_shard(tmp_path: Path, compression: str) -> None:
    assert read(shard(tmp_path, b"", compression)) == b""
    assert read(shard(tmp_path, COMPRESS[compression](b""), compression)) == b""


@pytest.mark.parametrize(
    ("content", "compression", "message"),
    [
        (gzip.compress(TEXT), "", "holds gzip data, not what its name says; end its name in .gz"),
        (zstd(TEXT), "", "holds zstd data, .* end its name in .zst"),
        (zstd(TEXT), "gzip", "holds zstd data, .* end its name in .zst"),
        (gzip.compress(TEXT), "zstd", "holds gzip data, .* end its name in .gz"),
        (TEXT, "gzip", "is not gzip data; if it is plain text, take .gz off its name"),
        (TEXT, "zstd", "is not zstd data; if it is plain text, take .zst off its name"),
        (b"PAR1....PAR1", "", "holds Parquet data, .* end its name in .parquet"),
        (b"BZh91AY", "", "holds bzip2 data instead of lines of JSON; unpack it with bunzip2"),
        (TEXT.decode().encode("utf-16"), "", "is UTF-16; convert with: iconv -f UTF-16 -t UTF-8"),
    ],
)
def test_a_name_that_lies_is_found_out(tmp_path: Path, content: bytes, compression: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(shard(tmp_path, content, compression))


def test_windows_of_two_gigabytes_are_read(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    long = compressor.compress(TEXT) + compressor.flush()
    assert read(shard(tmp_path, long, "zstd")) == TEXT


def test_a_bomb_comes_out_in_parts_of_bounded_size(tmp_path: Path) -> None:
    compressor, megabyte = zstandard.ZstdCompressor().compressobj(), bytes(1 << 20)
    bomb = b"".join([compressor.compress(megabyte) for _ in range(600)]) + compressor.flush()
    assert len(bomb) < 1 << 16
    with Reader(shard(tmp_path, bomb, "zstd")) as reader:
        assert reader._decoded
        sizes = [len(part) for part in reader._decoded]
    assert sum(sizes) == 600 << 20
    assert max(sizes) <= 256 << 20


@pytest.mark.parametrize("compression", COMPRESS)
def test_digest_is_of_the_stored_bytes_and_all_are_told(tmp_path: Path, compression: str) -> None:
    stored = COMPRESS[compression](TEXT)
    told: list[int] = []
    with Reader(shard(tmp_path, stored, compression), on_read=told.append) as reader:
        while reader.readinto(memoryview(bytearray(999))):
            pass
        assert reader.digest() == xxhash.xxh3_128_hexdigest(stored)
    assert sum(told) == len(stored)


def test_digest_of_a_range_is_of_the_range(tmp_path: Path) -> None:
    source = shard(tmp_path, TEXT, "")
    with Reader(source, begin=100, end=300) as reader:
        reader.readinto(memoryview(bytearray(1000)))
        assert reader.digest() == xxhash.xxh3_128_hexdigest(TEXT[100:300])


def test_real_shards_come_out_as_other_tools_read_them(shared_data: Path) -> None:
    for path in sorted((shared_data / "sample").rglob("*.zst")):
        with path.open("rb") as file:
            stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            assert read(expand([str(path)])[0], 1 << 20) == stream.read()
