"""Trace queries: which documents of a pool lower the loss on each of some documents most, and by which of their tokens.

Each query is a target of its own for the scorer `influence`, so the pool is read once for all, and what an ordinary
score run has holds here: score files with a column for each query, finished shards kept. Then the highest of each
column are read again, and their scores told apart by token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import Batch
from dvsel.gradients.fitted_directions import FittedDirections
from dvsel.interface.scorer import Scorer
from dvsel.options import Options, files_named, option, part, refuse_unread
from dvsel.pool.dry_run import Forecast, forecast
from dvsel.pool.fields import check_fields, named_fields
from dvsel.pool.fitting import kept_fit
from dvsel.pool.locate import reading_of, unchanged_shard
from dvsel.pool.read import TARGET_FLAG, TEXT_FLAG, PoolReader
from dvsel.pool.sample import pool_sample
from dvsel.pool.scoring import score_into
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
    for shard in expand(run.query):
        for _, identity, batch in _rows(shard, run.targeting.reading(run.reading), needs, flag=TARGET_FLAG):
            names.append(identity)
            batches.append(batch)
    if not all(names) or len(set(names)) < len(names):
        names = [str(number) for number in range(1, len(batches) + 1)]
    return dict(zip(names, batches, strict=True))


def _rows(
    shard: Shard,
    reading: Reading,
    needs: tuple[str, ...],
    wanted: npt.NDArray[np.int64] | None = None,
    flag: str = TEXT_FLAG,
) -> Iterator[tuple[int, str, Batch]]:
    """Row, id and the document alone, of the rows that are wanted, which rise; None: of all."""
    with PoolReader(shard, reading, needs, text_flag=flag) as pool:
        for batch in pool:
            begin = batch.documents.first_row
            rows = np.arange(len(batch))
            if wanted is not None:
                rows = wanted[(wanted >= begin) & (wanted < begin + len(batch))] - begin
            columns = {path: batch.documents.fields[path] for path in needs}
            names = batch.documents.fields[reading.id_field]
            for row in rows.tolist():
                one = np.array([row])
                alone = Batch(batch.text.take(one), {path: column.take(one) for path, column in columns.items()})
                yield begin + row, names[row].decode(errors="replace"), alone


@dataclass(frozen=True)
class _Top:
    """The highest rows so far, the highest first. file, row: where they are."""

    score: npt.NDArray[np.float32]
    key: npt.NDArray[np.uint64]
    file: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]

    def with_more(self, more: _Top, count: int) -> _Top:
        """Merge both and keep `count` at most; ties go by the documents' keys."""
        both = [
            np.concatenate([getattr(one, name) for one in (self, more)]) for name in ("score", "key", "file", "row")
        ]
        order = np.lexsort((both[1], -both[0]))[:count]
        return _Top(*(column[order] for column in both))


def _found(files: Sequence[ScoreFile], fitted: FittedDirections, count: int) -> list[Found]:
    """The documents that each query's column puts highest, with their texts and tokens."""
    tops = _tops(files, len(fitted.groups), count)
    texts = _texts(files, tops, fitted.scorer.needs)
    found = []
    for group, (name, top) in enumerate(zip(fitted.groups, tops, strict=True)):
        for rank, (value, file, row) in enumerate(zip(top.score, top.file, top.row, strict=True), 1):
            identity, batch = texts[int(file), int(row)]
            (tokens,) = fitted.by_token(fitted.options.documents([batch]), group)
            shard, text = files[file].header.shard.name, batch.text[0].decode(errors="replace")
            tokens = _scaled(tokens, float(value))
            found.append(Found(name, rank, float(value), identity, str(shard), int(row) + 1, text, tokens))
    return found


def _tops(files: Sequence[ScoreFile], groups: int, count: int) -> list[_Top]:
    empty = np.zeros(0, np.int64)
    tops = [_Top(np.zeros(0, np.float32), np.zeros(0, np.uint64), empty, empty)] * groups
    for number, file in enumerate(files):
        first = 0
        for rows in file.rows(("key",)):
            for group in range(groups):
                values = rows.score[:, group]
                there = np.flatnonzero(np.isfinite(values))
                kept = there[np.lexsort((rows.key[there], -values[there]))[:count]]
                more = _Top(values[kept], rows.key[kept], np.full(len(kept), number), first + kept)
                tops[group] = tops[group].with_more(more, count)
            first += len(rows)
    return tops


def _texts(
    files: Sequence[ScoreFile], tops: Sequence[_Top], needs: tuple[str, ...]
) -> dict[tuple[int, int], tuple[str, Batch]]:
    """Id and document of every row that some query has among its highest, by file and row."""
    found = {}
    for number, file in enumerate(files):
        wanted = np.unique(np.concatenate([top.row[top.file == number] for top in tops]))
        if len(wanted):
            shard, reading = unchanged_shard(file), reading_of(file)
            for row, identity, batch in _rows(shard, reading, needs, wanted):
                found[number, row] = identity, batch
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
