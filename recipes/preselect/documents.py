"""Documents drawn from any pool, cut into pieces, kept as JSON Lines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dvsel.pool.sample import draw_sample
from dvsel.runs.requests import Reading, Sampling
from dvsel.shards.expand import expand


@dataclass(frozen=True)
class Document:
    """One line of a pool."""

    id: str
    domain: str
    text: str

    @property
    def size(self) -> int:
        """Bytes of text."""
        return len(self.text.encode())


def draw(patterns: Sequence[str], size: int, seed: int) -> list[Document]:
    """Documents of `size` bytes in all, drawn from shards at random, in random order, each text once."""
    sample = draw_sample(expand(patterns), Reading(), Sampling(seed=seed), size, ("id", "domain"))
    columns = [sample.columns[name] for name in ("id", "domain", "text")]
    rows = ([column[row].decode(errors="replace") for column in columns] for row in range(len(sample.text)))
    found = {text: Document(name, domain or "-", text) for name, domain, text in rows}
    return list(found.values())


def pieces(documents: Iterable[Document], longest: int) -> Iterator[Document]:
    """The documents, of which those longer than `longest` characters are cut, at the end of a line or a word."""
    for document in documents:
        for number, text in enumerate(_cut(document.text, longest)):
            yield dataclasses.replace(document, id=f"{document.id}#{number}", text=text)


def _cut(text: str, longest: int) -> Iterator[str]:
    while len(text) > longest:
        ends = (text.rfind(mark, longest // 2, longest) + 1 for mark in "\n ")
        end = next(filter(None, ends), longest)
        yield text[:end]
        text = text[end:]
    if text:
        yield text


def write(path: Path, documents: Iterable[Document]) -> None:
    """Write documents, one a line. The file appears whole or not at all."""
    unfinished = path.with_name("." + path.name)
    with unfinished.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(dataclasses.asdict(document), ensure_ascii=False) + "\n" for document in documents)
    unfinished.replace(path)


def read(path: Path) -> list[Document]:
    """The documents in a file that `write` made, or all in a folder of such files."""
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    return [Document(**json.loads(line)) for file in files for line in file.open(encoding="utf-8")]
