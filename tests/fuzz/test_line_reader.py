"""The line reader against Python's split, on whole, cut and broken files; what it cannot read is a UserError."""

from __future__ import annotations

import gzip
import io
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash
import zstandard

from dvsel.documents.columns import PAD
from dvsel.errors import UserError
from dvsel.shards.expand import expand
from dvsel.shards.lines import LineReader
from dvsel.storage.places import Shard
from fuzzing import fuzz

BOM = b"\xef\xbb\xbf"
PIECES = [b"\n", b"\n", b"\n\n", b"\r\n", b"a", b'{"text": "b"}', b"longer than a small block", BOM, b"\0", b"x" * 300]


def split(content: bytes) -> list[bytes]:
    parts = content.removeprefix(BOM).split(b"\n")
    return parts[:-1] if parts[-1] == b"" else parts


def read(source: Shard | io.BytesIO, chance: random.Random, begin: int = 0, end: int | None = None) -> list[bytes]:
    found: list[bytes] = []
    told: list[int] = []
    block = chance.choice([1, 2, 7, 64, 1000])
    with LineReader(source, begin=begin, end=end, block=block, on_read=told.append) as reader:
        for part in reader:
            assert part.first_row == len(found) and len(part.data) >= part.ends[-1] + PAD
            found += [part[row] for row in range(len(part))]
    if end is not None and isinstance(source, Shard):
        content = Path(source.url).read_bytes()[begin:end]
        assert reader.digest() == xxhash.xxh3_128_hexdigest(content) and sum(told) == len(content)
    return found


def pieces(content: bytes, chance: random.Random) -> list[bytes]:
    """The content in parts, some of them empty."""
    cuts = sorted(chance.choices(range(len(content) + 1), k=chance.randrange(4)))
    return [content[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]


def packed(content: bytes, compression: str, chance: random.Random) -> bytes:
    """A compressed file of several members or frames."""
    if compression == "gzip":
        return b"".join(gzip.compress(part, chance.choice([0, 1, 6]), mtime=0) for part in pieces(content, chance))
    made = b""
    for part in pieces(content, chance):
        if chance.random() < 0.2:
            made += b"\x50\x2a\x4d\x18\x03\0\0\0abc"  # a frame to be passed over
        options: dict[str, Any] = {"write_checksum": chance.random() < 0.5, "write_content_size": chance.random() < 0.5}
        made += zstandard.ZstdCompressor(level=1, **options).compress(part)
    return made


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The bytes with one to three of them changed, taken out, put in or cut off."""
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(content) + 1)
        match chance.randrange(5):
            case 0:
                content = content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
            case 1:
                content = content[:at] + chance.randbytes(chance.randint(1, 4)) + content[at:]
            case 2:
                content = content[:at] + content[at + chance.randint(1, 9) :]
            case 3:
                content = content[:at]
            case _:
                content += content[at : at + 20]
    return content


def text(chance: random.Random) -> bytes:
    return b"".join(chance.choices(PIECES, k=chance.choice([0, 1, 3, 20, 200])))


def shard(folder: Path, content: bytes, suffix: str = "") -> Shard:
    place = folder / f"a.jsonl{suffix}"
    place.write_bytes(content)
    return expand([str(place)])[0]


def refused(error: UserError) -> None:
    assert "; " in str(error) and "\n" not in str(error)


def try_plain(cases: int, folder: Path) -> None:
    """Whole files, streams, and byte ranges that cover a file."""

    def case(chance: random.Random) -> None:
        content = text(chance)
        source = shard(folder, content)
        assert read(source, chance) == read(io.BytesIO(content), chance) == split(content)
        cuts = sorted({0, len(content), *chance.choices(range(len(content) + 1), k=3)})
        ranges = itertools.pairwise(cuts)
        assert [line for begin, end in ranges for line in read(source, chance, begin, end)] == split(content)

    fuzz(cases, case)


def try_packed(cases: int, folder: Path) -> None:
    """Compressed files of several members."""

    def case(chance: random.Random) -> None:
        content, (compression, suffix) = text(chance), chance.choice([("gzip", ".gz"), ("zstd", ".zst")])
        assert read(shard(folder, packed(content, compression, chance), suffix), chance) == split(content)

    fuzz(cases, case)


def try_broken(cases: int, folder: Path) -> None:
    """Broken files: lines or a UserError, and of gzip, whose checksum tells, never other lines."""

    def case(chance: random.Random) -> None:
        content, (compression, suffix) = text(chance), chance.choice([("", ""), ("gzip", ".gz"), ("zstd", ".zst")])
        whole = packed(content, compression, chance) if compression else content
        broken = mutated(whole, chance)
        try:
            found = read(shard(folder, broken, suffix), chance)
        except UserError as error:
            refused(error)
            return
        if not compression:
            assert found == split(broken)
        elif compression == "gzip" and len(broken) >= len(whole):
            assert found == split(content)

    fuzz(cases, case)


@pytest.mark.parametrize("attempt", [try_plain, try_packed, try_broken])
def test_lines_are_those_of_split(attempt: Callable[[int, Path], None], tmp_path: Path) -> None:
    attempt(1_000, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("attempt", [try_plain, try_packed, try_broken])
def test_lines_of_many_files_are_those_of_split(attempt: Callable[[int, Path], None], tmp_path: Path) -> None:
    attempt(30_000, tmp_path)
