"""Small corpora of real text: the language reference and the sources that every Python installation carries.

A document has an id, a domain ("reference" or "code") and a text of some 100 to 600 words. Nothing is random.
"""

from __future__ import annotations

import functools
import gzip
import importlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

Document = dict[str, Any]

_MODULES = ("argparse", "ast", "calendar", "difflib", "json.decoder", "shutil", "textwrap", "zipfile")
_WORDS = 120
_TARGET_EVERY = 6


@functools.cache
def documents() -> tuple[Document, ...]:
    """All documents, about 900: those of the reference first."""
    from pydoc_data.topics import topics

    found = [("reference", name, topics[name]) for name in sorted(topics)]
    found += [("code", name, inspect.getsource(importlib.import_module(name))) for name in _MODULES]
    return tuple(
        {"id": f"{domain}/{name}/{part}", "domain": domain, "text": text}
        for domain, name, whole in found
        for part, text in enumerate(_pieces(whole))
    )


def pool() -> list[Document]:
    """The documents that the target does not take; copies, for a test to change."""
    return [dict(document) for number, document in enumerate(documents()) if not _is_target(number, document)]


def target() -> list[Document]:
    """Every sixth document of the reference; copies, as above."""
    return [dict(document) for number, document in enumerate(documents()) if _is_target(number, document)]


def _is_target(number: int, document: Document) -> bool:
    return document["domain"] == "reference" and number % _TARGET_EVERY == 0


def _pieces(text: str) -> Iterable[str]:
    """Paragraphs, joined until they have enough words to be scored."""
    piece: list[str] = []
    for paragraph in text.split("\n\n"):
        piece.append(paragraph)
        if sum(len(part.split()) for part in piece) >= _WORDS:
            yield "\n\n".join(piece)
            piece = []
    if piece:
        yield "\n\n".join(piece)


def lines(documents: Iterable[Mapping[str, Any]]) -> bytes:
    """JSON Lines."""
    return b"".join(json.dumps(document, ensure_ascii=False).encode() + b"\n" for document in documents)


def write(path: Path, content: bytes | Sequence[Mapping[str, Any]]) -> Path:
    """Write documents, or lines as they are, in the format that the name's suffix states; makes folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        assert not isinstance(content, bytes)
        pq.write_table(pa.Table.from_pylist(list(content)), path)
        return path
    content = content if isinstance(content, bytes) else lines(content)
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = zstandard.compress(content)
    path.write_bytes(content)
    return path


def read_lines(*paths: Path) -> list[bytes]:
    """The lines of JSONL files, without their LF."""
    return [line for path in paths for line in content(path).split(b"\n")[:-1]]


def content(path: Path) -> bytes:
    """A JSONL file's bytes, decompressed."""
    match path.suffix:
        case ".gz":
            return gzip.decompress(path.read_bytes())
        case ".zst":
            with zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True) as reader:
                return reader.read()
    return path.read_bytes()


def shards_of(folder: Path) -> list[Path]:
    """The output shards of a selection, sorted by name; hidden files are none."""
    return sorted(
        path
        for path in folder.rglob("*-[0-9][0-9][0-9][0-9][0-9].*")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def selected_ids(folder: Path) -> set[str]:
    """The ids of all documents in a selection."""
    found: list[str] = []
    for path in shards_of(folder):
        if path.suffix == ".parquet":
            found += pq.read_table(path, columns=["id"])["id"].to_pylist()
        else:
            found += [json.loads(line)["id"] for line in read_lines(path)]
    assert len(set(found)) == len(found), "a document was written twice"
    return set(found)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
