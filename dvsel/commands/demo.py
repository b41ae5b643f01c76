"""A small real pool and target, made from the text that every Python installation carries.

The pool has four domains: the language's documentation topics, the docstrings of the standard library, its sources,
and licence texts. The target is every fifth documentation topic, which the pool then lacks.
"""

from __future__ import annotations

import ast
import json
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.metadata import distributions
from itertools import islice
from pathlib import Path

import zstandard

from dvsel.storage.manifest import record
from dvsel.storage.places import atomic_writer

_TARGET_EVERY = 5
_CHUNK = 4000  # characters of source a document
_SOURCES = 400  # files of the standard library
_LICENCE_NAMES = ("LICENSE", "LICENCE", "COPYING", "NOTICE")


def build(folder: Path) -> tuple[list[Path], Path]:
    """Write the pool's shards and the target into `folder`; returns their paths."""
    topics = list(_topics())
    target = [document for number, document in enumerate(topics) if number % _TARGET_EVERY == 0]
    kept = [document for number, document in enumerate(topics) if number % _TARGET_EVERY]
    sources = list(islice(_standard_library(), _SOURCES))
    domains = {
        "documentation": kept,
        "docstrings": _docstrings(sources),
        "sources": _code(sources),
        "licences": _licences(),
    }
    pool = folder / "pool"
    record(str(folder), [*(f"pool/{name}.jsonl.zst" for name in domains), "target.jsonl"])
    shards = [_write(pool / f"{name}.jsonl.zst", name, texts) for name, texts in domains.items()]
    return shards, _write(folder / "target.jsonl", "documentation", target)


def _write(path: Path, domain: str, documents: Iterable[tuple[str, str]]) -> Path:
    lines = [
        json.dumps({"id": f"{domain}/{name}", "domain": domain, "text": text}, ensure_ascii=False)
        for name, text in documents
    ]
    content = "".join(line + "\n" for line in lines).encode("utf-8", "replace")  # lone surrogates become "?"
    with atomic_writer(str(path)) as file:
        file.write(zstandard.compress(content) if path.suffix == ".zst" else content)
    return path


def _topics() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    names = {text: name for name, text in sorted(topics.items(), reverse=True)}  # some topics share their text
    for text, name in sorted(names.items(), key=lambda topic: topic[1]):
        for part, paragraph in enumerate(_pieces(text)):
            yield f"{name}-{part}", paragraph


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), _CHUNK):
        yield text[start : start + _CHUNK]


def _standard_library() -> Iterator[tuple[str, str]]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(("site-packages/", "test/", "pydoc_data/")) and "/test" not in name:
            try:
                yield name, path.read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError):
                continue  # sources kept in another encoding


def _docstrings(sources: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, source in sources:
        try:
            nodes = list(ast.walk(ast.parse(source)))
        except SyntaxError:
            continue  # templates that are not Python yet
        documented = [node for node in nodes if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
        for number, node in enumerate(documented):
            if text := ast.get_docstring(node):
                yield f"{name}-{number}", text


def _code(sources: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, source in sources:
        for part, piece in enumerate(_pieces(source)):
            yield f"{name}-{part}", piece


def _licences() -> Iterator[tuple[str, str]]:
    """Licences of Python itself and of the packages beside it, each text once."""
    seen = set()
    for name, path in sorted(_licence_files()):
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        if text not in seen:
            seen.add(text)
            for part, piece in enumerate(_pieces(text)):
                yield f"{name}-{part}", piece


def _licence_files() -> Iterator[tuple[str, Path]]:
    own = Path(sysconfig.get_path("stdlib")) / "LICENSE.txt"
    if own.is_file():
        yield "python", own
    for distribution in distributions():
        for file in distribution.files or ():
            if file.name.upper().startswith(_LICENCE_NAMES) and (path := Path(str(file.locate()))).is_file():
                yield f"{distribution.name}/{file}", path
