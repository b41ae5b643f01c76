"""Trace queries: which documents of a pool lower the loss on each of some documents most, and by which of their tokens.

Each query is a target of its own for the scorer `influence`, so the pool is read once for all, and what an ordinary
score run has holds here: score files with a column for each query, finished shards kept. Then the highest of each
column are read again, and their scores told apart by token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dvsel.documents.columns import Batch
from dvsel.gradients.fitted_directions import FittedDirections
from dvsel.interface.scorer import Scorer
from dvsel.options import Options, files_named, option, part, refuse_unread
from dvsel.pool.dry_run import Forecast, forecast
from dvsel.pool.fields import check_fields, named_fields
from dvsel.pool.fitting import kept_fit
from dvsel.pool.read import TARGET_FLAG, PoolBatch
from dvsel.pool.sample import pool_sample
from dvsel.pool.scoring import score_into
from dvsel.pool.top_rows import documents_of, read_rows, top_rows
from dvsel.progress import tell
from dvsel.runs import fitted_files as storage
from dvsel.runs.output_folder import REPORT, working_in
from dvsel.runs.recipe import dump
from dvsel.runs.report import left_out, unread_of, write_json
from dvsel.runs.requests import Execution, Reading, Sampling, ScoreRun, Scoring, Targeting
from dvsel.score_files.find import SCORES, SUFFIXES
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers.influence import Influence
from dvsel.shards.expand import expand
from dvsel.storage.manifest import record
from dvsel.storage.places import Shard, atomic_writer, find, join

TRACED = "traced.jsonl"
_EXCERPT = 60  # characters


@dataclass(frozen=True, kw_only=True)
class TraceRun(Options):
    """Find the documents of a pool that each query's loss depends on most."""

    sampling: Sampling = part(Sampling)
    targeting: Targeting = part(Targeting)
    reading: Reading = part(Reading)
    scorer: Scorer | None = None
    pool: tuple[str, ...] = option((), "shards, folders, globs or URLs", files=True)
    query: tuple[str, ...] = option((), "documents to trace, each for itself; repeatable", files=True)
    top: int = option(10, "documents to name for each query", minimum=1)
    output: str = option("", "folder to write to: traced.jsonl, and score files with a column for each query")


@dataclass(frozen=True)
class Found:
    """A document of the pool. line: its number in the shard, from 1. tokens: each with its part in the score."""

    query: str
    rank: int
    score: float
    id: str
    shard: str
    line: int
    text: str
    tokens: list[tuple[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class TraceReport:
    """Report of `dvsel trace`. queries: the first document found for each."""

    documents: int
    output: str
    queries: list[Found]
    unread: list[tuple[str, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The summary."""
        first = [
            f"{one.query}: {one.score:.4g}  {one.shard}:{one.line}  {_excerpt(one.text)!r}, most at {_strongest(one)!r}"
            for one in self.queries
        ]
        return [f"traced {len(self.queries):,} queries in {self.documents:,} documents; the first of each:", *first,
                f"wrote {self.output}", *left_out(self.unread)]  # fmt: skip


def trace(run: TraceRun, execution: Execution) -> TraceReport | Forecast:
    """Trace the queries into `run.output`, where finished shards are kept."""
    refuse_unread(run)
    scorer = run.scorer
    assert isinstance(scorer, Influence)
    shards = expand(run.pool)
    expand(run.query)
    check_fields(shards, named_fields(run.reading, scorer=scorer))
    if execution.dry_run:
        return forecast(shards, run.reading, dump("trace", run))
    with working_in(run.output, dump("trace", run), execution.overwrite, files_named(run)):
        sampled = shards if scorer.takes_pool else []
        name = storage.default_name("influence")
        place = kept_fit(run, sampled, run.output, name, lambda: _fitted(run, scorer, shards, execution))
        fitted = storage.load(place)[0]
        assert isinstance(fitted, FittedDirections)
        folder = join(run.output, SCORES)
        record(run.output, [TRACED])
        scores = ScoreRun(scoring=Scoring(fitted=place), pool=run.pool, output=folder, reading=run.reading)
        score_into(scores, shards, execution, lambda: place)
        files = [ScoreFile(url) for url in find(folder, SUFFIXES)]
        tell("telling tokens apart")
        found = _found(files, fitted, run.top)
        _write(found, join(run.output, TRACED))
        first = [one for one in found if one.rank == 1]
        report = TraceReport(sum(map(len, files)), join(run.output, TRACED), first, unread_of(files))
        write_json(report, join(run.output, REPORT))
    return report


def _fitted(run: TraceRun, scorer: Influence, shards: Sequence[Shard], execution: Execution) -> FittedDirections:
    """The scorer with each query as a target."""
    pool: Iterable[Batch] = ()
    if scorer.takes_pool:
        pool = pool_sample(shards, run.reading, run.sampling, scorer.needs, execution).batches()
    targets = {name: [batch] for name, batch in _queries(run, scorer.needs).items()}
    tell("fitting influence")
    return scorer.fit(pool, targets)


def _queries(run: TraceRun, needs: tuple[str, ...]) -> dict[str, Batch]:
    """The queries by name: their ids where each has one of its own, else their numbers."""
    names, batches = [], []
    reading = run.targeting.reading(run.reading)
    for shard in expand(run.query):
        for _, batch, row in read_rows(shard, reading, None, needs, TARGET_FLAG):
            name, alone = _alone(batch, row, needs, reading.id_field)
            names.append(name)
            batches.append(alone)
    if not all(names) or len(set(names)) < len(names):
        names = [str(number) for number in range(1, len(batches) + 1)]
    return dict(zip(names, batches, strict=True))


def _alone(batch: PoolBatch, row: int, needs: tuple[str, ...], id_field: str) -> tuple[str, Batch]:
    """Return the id of a document, and the document alone."""
    one, columns = np.array([row]), {path: batch.documents.fields[path] for path in needs}
    alone = Batch(batch.text.take(one), {path: column.take(one) for path, column in columns.items()})
    return batch.documents.fields[id_field][row].decode(errors="replace"), alone


def _found(files: Sequence[ScoreFile], fitted: FittedDirections, count: int) -> list[Found]:
    """Find the documents that each query's column puts highest, with their texts and tokens."""
    tops, needs = top_rows(files, count, range(len(fitted.groups))), fitted.scorer.needs
    documents = {
        (number, row): _alone(batch, at, needs, files[number].header.reading.id_field)
        for number, row, batch, at in documents_of(files, tops, needs=needs)
    }
    found = []
    for group, (name, top) in enumerate(zip(fitted.groups, tops, strict=True)):
        for rank, (value, file, row) in enumerate(zip(top.score, top.file, top.row, strict=True), 1):
            identity, batch = documents[int(file), int(row)]
            (tokens,) = fitted.by_token(fitted.options.documents([batch]), group)
            shard, text = files[file].header.shard.name, batch.text[0].decode(errors="replace")
            tokens = _scaled(tokens, float(value))
            found.append(Found(name, rank, float(value), identity, shard, int(row) + 1, text, tokens))
    return found


def _scaled(tokens: list[tuple[str, float]], total: float) -> list[tuple[str, float]]:
    """Parts that sum to the score, which with similarity cosine is a share of what they sum to."""
    now = sum(value for _, value in tokens)
    factor = total / now if now else 0.0
    return [(token, value * factor) for token, value in tokens]


def _write(found: Sequence[Found], url: str) -> None:
    with atomic_writer(url) as file:
        for one in found:
            file.write(json.dumps(_plain(one), ensure_ascii=False).encode() + b"\n")


def _plain(one: Found) -> dict[str, Any]:
    """Plain values of a line: tokens and their influence side by side."""
    values = {name: getattr(one, name) for name in ("query", "rank", "score", "id", "shard", "line", "text")}
    tokens, influence = [list(part) for part in zip(*one.tokens, strict=True)] if one.tokens else ([], [])
    return values | {"tokens": tokens, "influence": influence}


def _excerpt(text: str) -> str:
    return text if len(text) <= _EXCERPT else text[: _EXCERPT - 3] + "..."


def _strongest(one: Found) -> str:
    """The tokens around the one that counts most."""
    place = max(range(len(one.tokens)), key=lambda number: one.tokens[number][1], default=0)
    return "".join(token for token, _ in one.tokens[max(place - 3, 0) : place + 2])
