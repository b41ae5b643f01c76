"""Look at scores: how they spread, which domains lead, what the best and the worst documents are like."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dvsel.budget import Budget
from dvsel.origin import Relocated, reading_of, unchanged_shard
from dvsel.plan import Plan
from dvsel.pool import paths_to_read, read_pool
from dvsel.report import Share
from dvsel.rule import Pool
from dvsel.select import domains_of, histogram_of
from dvsel.selectors.topk import TopK
from dvsel.shards.documents import DocumentReader
from dvsel.shards.scorefile import ScoreFile
from dvsel.sources import row_files

_EXCERPT = 400


@dataclass(frozen=True, order=True)
class Document:
    """A document of the pool. line: its number in the shard, from 1."""

    score: float
    shard: str
    line: int
    domain: str
    text: str = field(default="", compare=False)


@dataclass(frozen=True)
class Inspection:
    """What the scores say. Shares are those that topk under `budget` keeps."""

    scorer: str
    documents: int
    tokens: int
    budget: str
    histogram: dict[str, Any]
    domains: dict[str, Share]
    best: list[Document]
    worst: list[Document]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def inspect(
    sources: Sequence[str], budget: Budget, documents: int, threads: int, moved: Sequence[str] = ()
) -> Inspection:
    """Inspect score files; documents: how many of the best and of the worst to read. moved: where the pool lies now."""
    pool = Pool.of([ScoreFile(url) for source in sources for url in row_files(source)])
    with tempfile.TemporaryDirectory() as scratch:
        plan = Plan.make(pool, TopK(), 0, Path(scratch), budget, threads=threads)
    best, worst = _extremes(pool, documents)
    header, places = pool.files[0].header, Relocated(moved) if moved else None
    return Inspection(
        header.scorer,
        pool.total("docs"),
        pool.total("tokens"),
        budget.echo(pool.total(budget.unit)),
        histogram_of(plan),
        domains_of(plan),
        _with_texts(pool, best, places),
        _with_texts(pool, worst, places),
    )


def _extremes(pool: Pool, count: int) -> tuple[list[Document], list[Document]]:
    best: list[Document] = []
    worst: list[Document] = []
    for number, file in enumerate(pool.files):
        for rows, first in pool.rows(number):
            score = rows.score[:, 0]
            order = np.argsort(score, kind="stable")
            order = order[np.isfinite(score[order])]
            ends = [*order[:count], *order[max(len(order) - count, count) :]]
            found = [
                Document(
                    float(score[row]),
                    str(file.header.shard["name"]),
                    first - pool.first[number] + int(row) + 1,
                    rows.domains[rows.domain[row]],
                )
                for row in ends
            ]
            best = heapq.nlargest(count, best + found)
            worst = heapq.nsmallest(count, worst + found)
    return best, worst


def _with_texts(pool: Pool, documents: list[Document], places: Relocated | None) -> list[Document]:
    texts: dict[tuple[str, int], str] = {}
    for file in pool.files:
        lines = {document.line for document in documents if document.shard == file.header.shard["name"]}
        if lines:
            texts |= {
                (str(file.header.shard["name"]), line): text for line, text in _texts(file, lines, places).items()
            }
    return [
        Document(one.score, one.shard, one.line, one.domain, texts.get((one.shard, one.line), "")) for one in documents
    ]


def _texts(file: ScoreFile, lines: set[int], places: Relocated | None) -> dict[int, str]:
    """The beginnings of the texts in some lines of a shard."""
    shard, reading = unchanged_shard(file, places), reading_of(file)
    found: dict[int, str] = {}
    with DocumentReader(shard, paths_to_read(reading)) as reader:
        for batch in read_pool(reader, shard, reading):
            first = batch.documents.first_row + 1
            for line in sorted(lines):
                if first <= line < first + len(batch):
                    found[line] = batch.text[line - first][:_EXCERPT].decode(errors="ignore")
            if len(found) == len(lines):
                break
    return found
