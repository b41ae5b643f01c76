"""Corpora of any size for the other benchmarks: documents of this Python installation, or of files that are named.

The documents are taken again and again, each time with other ids, until a shard has the size that is wanted.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import itertools
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import zstandard
from measure import DVSEL

from dvsel.commands import demo
from dvsel.shards.expand import expand
from dvsel.shards.lines import LineReader

_WRITTEN_AT_ONCE = 1000  # lines


@dataclass(frozen=True)
class Corpus:
    """Documents, a target, and a folder that is gone at the end."""

    documents: list[dict[str, Any]]
    target: str
    folder: Path

    def lines(self) -> Iterator[bytes]:
        """JSON lines without end; documents met again have other ids."""
        for again in itertools.count():
            for document in self.documents:
                yield orjson.dumps(document | {"id": f"{document.get('id')}-{again}"}) + b"\n"

    def write(self, name: str, size: int) -> Path:
        """A shard of `size` uncompressed bytes or a little more, compressed as its name says."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = self.lines()
        with _open(path) as file:
            while size > 0:
                block = b"".join(itertools.islice(lines, _WRITTEN_AT_ONCE))
                size -= file.write(block)
        return path

    def sample(self, name: str, size: int) -> Path:
        """A plain shard of about `size` bytes, of documents drawn at even steps from all of them."""
        lines = list(itertools.islice(self.lines(), len(self.documents)))
        step = max(sum(map(len, lines)) // size, 1)
        path = self.folder / name
        path.write_bytes(b"".join(lines[::step]))
        return path

    def fit(self, shard: Path) -> Path:
        """A DSIR fitted on the shard and the target."""
        path = self.folder / "dsir.fitted"
        subprocess.run([*DVSEL, "fit", "dsir", "--pool", shard, "--target", self.target, "-o", path], check=True)
        return path


@contextlib.contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        match path.suffix:
            case ".gz":
                with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6) as packed:
                    yield packed  # type: ignore[misc]
            case ".zst":
                with zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False) as packed:
                    yield packed
            case _:
                yield file


def parser_of(doc: str | None, repeats: int | None = None) -> argparse.ArgumentParser:
    """A parser that shows `doc`, with the options of `add_options`, and --repeats where there is a default."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats)
    return parser


def add_options(parser: argparse.ArgumentParser) -> None:
    """--pool, --target and --folder."""
    parser.add_argument("--pool", nargs="+", metavar="FILE", help="documents to use; by default those of `dvsel demo`")
    parser.add_argument("--target", metavar="FILE", help="target to fit on; by default that of `dvsel demo`")
    parser.add_argument("--folder", metavar="FOLDER", help="where to make the folder of temporary files")


@contextlib.contextmanager
def corpus(options: argparse.Namespace) -> Iterator[Corpus]:
    """The corpus that the options name."""
    with tempfile.TemporaryDirectory(prefix="dvsel-bench-", dir=options.folder) as name:
        folder = Path(name)
        shards, target = demo.build(folder / "demo")
        documents = list(documents_of(options.pool or list(map(str, shards))))
        yield Corpus(documents, options.target or str(target), folder)


def documents_of(pool: list[str]) -> Iterator[dict[str, Any]]:
    """The documents of shards."""
    for shard in expand(pool):
        with LineReader(shard) as reader:
            for lines in reader:
                yield from (orjson.loads(lines[row]) for row in range(len(lines)))
