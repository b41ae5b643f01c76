"""Look at what runs left: how scores spread and what the best and the worst documents are like; what a selection
keeps; what vectors there are.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from glob import has_magic
from pathlib import Path
from typing import Any

import numpy as np

from dvsel.budget import Budget
from dvsel.commands.embed import EmbedReport
from dvsel.documents.columns import Status
from dvsel.errors import UserError
from dvsel.pool.locate import Relocated
from dvsel.pool.read import PoolBatch, PoolReader
from dvsel.pool.sources import is_embedded as is_embedded
from dvsel.pool.top_rows import documents_of, top_rows
from dvsel.runs.output_folder import RECIPE, REPORT
from dvsel.runs.recipe import command_of
from dvsel.runs.report import ScoreReport, SelectReport, Share
from dvsel.runs.requests import Reading
from dvsel.score_files.find import row_files
from dvsel.score_files.reader import ScoreFile
from dvsel.selection.plan import Plan
from dvsel.selection.scored_pool import Pool
from dvsel.selection.summary import domains_of, histogram_of
from dvsel.selectors.topk import TopK
from dvsel.shards.expand import expand
from dvsel.storage.places import Shard, exists, join

_EXCERPT = 400


@dataclass(frozen=True)
class Document:
    """A document of the pool. line: its number in the shard, from 1."""

    score: float
    shard: str
    line: int
    domain: str
    text: str


@dataclass(frozen=True)
class Inspection:
    """Summary of scores. Shares are those that topk under `budget` keeps.

    lost: what has no score, and why, in lines.
    """

    scorer: str
    documents: int
    tokens: int
    budget: str
    histogram: dict[str, Any]
    domains: dict[str, Share]
    best: list[Document]
    worst: list[Document]
    lost: list[str]

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
    header = pool.files[0].header
    best, worst = _extremes(pool, documents, Relocated(moved) if moved else None)
    return Inspection(
        header.scorer,
        pool.total("docs"),
        pool.total("tokens"),
        budget.echo(pool.total(budget.unit)),
        histogram_of(plan),
        domains_of(plan),
        best,
        worst,
        ScoreReport.of(pool.files).lost(),
    )


@dataclass(frozen=True)
class Selection:
    """Summary of a selection: the report of its run, and the first documents of some of its shards."""

    report: SelectReport
    documents: list[Document]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        named = [
            {"shard": one.shard, "line": one.line, "domain": one.domain, "text": one.text} for one in self.documents
        ]
        return {"report": asdict(self.report), "documents": named}


def is_selection(source: str) -> bool:
    """True for the folder of a run of `dvsel select`."""
    place = join(source, RECIPE)
    return not has_magic(source) and exists(place) and command_of(place) == "select"


def inspect_selection(folder: str, documents: int) -> Selection:
    """Inspect a selection; documents: how many to read."""
    if not exists(join(folder, REPORT)):
        raise UserError(f"{folder}: is not complete; the command that began it goes on from there")
    report = SelectReport.load(join(folder, REPORT))
    shards = expand([folder]) if report.given["docs"] and documents else []
    reading = Reading(**report.reading)
    step = max(len(shards) // max(documents, 1), 1)
    return Selection(report, [_first(shard, reading) for shard in shards[::step][:documents]])


def _first(shard: Shard, reading: Reading) -> Document:
    with PoolReader(shard, reading) as pool:
        batch = next(iter(pool))
    return Document(math.nan, shard.name, 1, *_document(batch, 0, reading.domain_field))


@dataclass(frozen=True)
class Embedded:
    """Summary of embeddings. domains: documents and tokens that have a vector."""

    report: EmbedReport
    domains: dict[str, Share]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"report": asdict(self.report), "domains": {name: asdict(one) for name, one in self.domains.items()}}


def inspect_embeddings(sources: Sequence[str]) -> Embedded:
    """Inspect what `dvsel embed` made."""
    files = [ScoreFile(url) for source in sources for url in row_files(source)]
    domains: dict[str, Share] = {}
    for file in files:
        for rows in file.rows(("tokens", "status", "domain")):
            scored = rows.status == Status.SCORED
            docs = np.bincount(rows.domain[scored], minlength=len(rows.domains))
            tokens = np.bincount(rows.domain[scored], rows.tokens[scored], minlength=len(rows.domains))
            for name, more, cost in zip(rows.domains, docs.tolist(), tokens.tolist(), strict=True):
                was = domains.get(name, Share(0, 0, 0, 0))
                domains[name] = Share(was.pool_docs + more, 0, was.pool_tokens + int(cost), 0)
    return Embedded(EmbedReport.of(files), dict(sorted(domains.items())))


def _extremes(pool: Pool, count: int, places: Relocated | None) -> tuple[list[Document], list[Document]]:
    """Read the documents with the highest and with the lowest scores."""
    tops = [top_rows(pool.files, count, lowest=lowest)[0] for lowest in (False, True)]
    documents = {
        (number, row): _document(batch, at, pool.files[number].header.reading.domain_field)
        for number, row, batch, at in documents_of(pool.files, tops, places)
    }
    best, worst = (
        [
            Document(float(score), pool.files[file].header.shard.name, int(row) + 1, *documents[int(file), int(row)])
            for score, file, row in zip(top.score, top.file, top.row, strict=True)
        ]
        for top in tops
    )
    return best, worst


def _document(batch: PoolBatch, row: int, domain_field: str) -> tuple[str, str]:
    """Return the domain of a document and the beginning of its text."""
    domain = batch.documents.fields[domain_field][row].decode(errors="replace")
    return domain, batch.text[row][:_EXCERPT].decode(errors="ignore")
