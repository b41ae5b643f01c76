"""Select under a budget: score files in, the chosen subset out as shards.

Which rows are kept is decided from score files alone, in streamed passes; then each shard is read once more and the
kept lines are copied out. The subset depends on documents, scores and the seed: not on sharding, order or workers.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from dvsel.budget import Budget
from dvsel.engines import local
from dvsel.errors import UserError
from dvsel.fit import check_fit
from dvsel.folder import REPORT, working_in
from dvsel.forecast import Forecast, forecast
from dvsel.options import among, files_named, to_mapping
from dvsel.origin import Relocated, changed, digest_of_parts, ranges, unchanged_shard
from dvsel.plan import Plan, check_budget, follows_scores, mask_file, weights_file
from dvsel.plugins import SELECTORS, name_of, selector_class
from dvsel.pool import paths_to_read, read_pool
from dvsel.recipe import dump
from dvsel.report import SelectReport, Share, write_json
from dvsel.rule import Pool
from dvsel.runs import Execution, Reading, ScoreRun, SelectRun
from dvsel.score import check, score
from dvsel.selectors import Selector, SetSelector
from dvsel.selectors.dedup import Chunk, Drops, duplicates, unpacked
from dvsel.selectors.quota import Quota
from dvsel.shards.columns import Kind, Status
from dvsel.shards.documents import DocumentReader
from dvsel.shards.extract import extract
from dvsel.shards.files import (
    HOME,
    Shard,
    atomic_writer,
    exists,
    is_remote,
    join,
    make_folder,
    open_read,
    remove,
)
from dvsel.shards.hashing import mix
from dvsel.shards.json_rows import check_columns, json_lines
from dvsel.shards.lines import LineReader, Lines
from dvsel.shards.manifest import home, record
from dvsel.shards.members import as_json, with_column, with_member
from dvsel.shards.scorefile import Rows, ScoreFile, Totals
from dvsel.shards.tokens import TokenCounter
from dvsel.shards.write import ShardWriter, first_piece
from dvsel.sources import SCORES, expand_pool, is_embedded, row_files

STDOUT = "-"
_SUBSET = f"{HOME}/subset"
_NO_RULE = "topk"  # of files that no scorer wrote


@dataclass(frozen=True)
class _Terms:
    """The run's budget, quota and cap on shards, read before any work is done."""

    budget: Budget | None
    quota: Quota | None
    cap: int

    @classmethod
    def of(cls, run: SelectRun) -> _Terms:
        budget = Budget.parse(run.budget) if run.budget else None
        quota = Quota.load(Path(run.quota)) if run.quota else None
        if run.scorer and not run.fitted:
            check_fit(run)
        if run.selector:
            check_budget(run.selector, budget, quota)
        cap = Budget.parse(run.shard_size, "--shard-size")
        if cap.unit != "bytes" or cap.amount is None:
            raise UserError(f"--shard-size is {run.shard_size}; give a size in bytes, such as 1GB")
        return cls(budget, quota, cap.amount)


def select(run: SelectRun, execution: Execution) -> SelectReport | Forecast:
    """Select from score files, or, where the run names a scorer, from a pool that is scored first."""
    terms = _Terms.of(run)
    scores_first = run.scorer is not None or run.fitted is not None
    if execution.dry_run and scores_first:
        return forecast(expand_pool(run.pool), run, dump("select", run))
    if execution.dry_run or run.output == STDOUT:
        if scores_first:
            raise UserError("scoring a pool leaves score files; name a folder with -o, or score first")
        return _select_from(_Sources.of(run.pool, run), run, terms, execution)
    sources = None
    if scores_first:
        check(_score_part(run))
    else:
        sources = _Sources.of(run.pool, run)
    with working_in(run.output, dump("select", run), execution.overwrite, files_named(run)):
        if sources is None:
            sources = _scored(run, execution)
        report = _select_from(sources, run, terms, execution)
        write_json(report, join(run.output, REPORT))
    return report


def _scored(run: SelectRun, execution: Execution) -> _Sources:
    """Score the pool into a folder inside the output; the score files, whose shards are where the run names them."""
    record(run.output, [f"{SCORES}/"])
    score(_score_part(run), execution)
    vectors = tuple(pattern for pattern in run.pool if is_embedded(pattern))
    moved = run.moved if vectors else run.pool
    run = dataclasses.replace(run, embeddings=run.embeddings or vectors, moved=moved)
    return _Sources.of((join(run.output, SCORES),), run)


@dataclass(frozen=True)
class _Sources:
    """What a run selects from. vectors: the files beside the pool's, for a rule that looks at them."""

    pool: Pool
    selector: Selector
    vectors: list[ScoreFile]
    places: Relocated | None

    @classmethod
    def of(cls, sources: Sequence[str], run: SelectRun) -> _Sources:
        """Open them. Raises UserError where they do not go together."""
        pool = Pool.of([ScoreFile(url) for source in sources for url in row_files(source, run.partial)])
        selector = run.selector or selector_class(pool.files[0].header.selector or _NO_RULE)()
        _check_scores(pool, selector)
        return cls(
            pool, selector, _vectors(pool, selector, run.embeddings), Relocated(run.moved) if run.moved else None
        )


def _select_from(sources: _Sources, run: SelectRun, terms: _Terms, execution: Execution) -> SelectReport:
    pool, selector = sources.pool, sources.selector
    with ExitStack() as stack:
        scratch = stack.enter_context(_scratch(run, execution))
        drops = stack.enter_context(_duplicates(pool, run.seed, terms.quota, scratch)) if run.dedup else None
        threads, reading = execution.processes(), among(Reading, run)
        plan = Plan.make(
            *(pool, selector, run.seed, scratch, terms.budget, terms.quota, drops, threads, sources.vectors, reading)
        )
        if not execution.dry_run:
            _write(plan, run.output, terms.cap, execution, sources.places)
        return report_on(plan, run)


def _check_scores(pool: Pool, selector: Selector) -> None:
    """Raise UserError for a rule that goes by scores where there are none."""
    by_scores = not isinstance(selector, SetSelector) and follows_scores(selector)
    if pool.files[0].header.embedding and by_scores:
        raise UserError(
            f"{pool.files[0].url} holds vectors and no scores; score first, or choose a --method that looks at vectors"
        )


def _vectors(pool: Pool, selector: Selector, embeddings: Sequence[str]) -> list[ScoreFile]:
    """The files of vectors beside the pool's, for a selector that looks at them."""
    if not (isinstance(selector, SetSelector) and selector.looks_at_vectors):
        return []
    from dvsel.survey import beside  # which needs torch

    return beside(pool, embeddings)


@contextmanager
def _scratch(run: SelectRun, execution: Execution) -> Iterator[Path]:
    """A folder for temporary files, inside the output so that what a kill leaves there is found and removed."""
    if execution.dry_run or run.output == STDOUT or is_remote(run.output):
        with tempfile.TemporaryDirectory(prefix="dvsel-") as folder:
            yield Path(folder)
        return
    inside = join(home(run.output), "scratch")
    remove(inside)
    make_folder(inside)
    try:
        yield Path(inside)
    finally:
        remove(inside)


def _score_part(run: SelectRun) -> ScoreRun:
    return dataclasses.replace(among(ScoreRun, run), output=join(run.output, SCORES))


def _duplicates(pool: Pool, seed: int, quota: Quota | None, scratch: Path) -> AbstractContextManager[Drops]:
    """Which rows repeat the text of another; only rows that some budget is for are looked at."""

    def chunk(rows: Rows) -> Chunk:
        competes = rows.status == Status.SCORED
        if quota:
            competes &= quota.stratum(rows.domains)[rows.domain] >= 0
        return Chunk(rows.text_hash, mix(rows.key, seed), competes)

    columns = ("key", "text_hash", "status", *(("domain",) if quota else ()))
    chunks = (chunk(rows) for number in range(len(pool.files)) for rows, _ in pool.rows(number, columns))
    return duplicates(chunks, pool.first[-1], scratch)


@dataclass(frozen=True, slots=True)
class _Task:
    shard: Shard
    ranges: list[tuple[int, int | None]]
    scores: str
    rows: int
    mask: str
    folder: str
    cap: int
    weights: str = ""
    weight_field: str = ""


def _write(plan: Plan, folder: str, cap: int, execution: Execution, pool: Relocated | None) -> None:
    selector = plan.rule.selector
    field = selector.weight_field if isinstance(selector, SetSelector) else ""
    tasks = [
        _Task(
            shard := unchanged_shard(file, pool),
            ranges(shard),
            file.url,
            len(file),
            str(mask_file(plan.masks, number)),
            folder,
            cap,
            str(weights_file(plan.masks, number)) if field else "",
            field,
        )
        for number, file in enumerate(plan.pool.files)
        if plan.kept[number]
    ]
    if folder == STDOUT:
        for task in tasks:
            check_columns(task.shard)  # of all shards, before anything is written
        for task in tasks:
            _print_shard(task)
        return
    _check_same_subset(plan, folder)
    tasks = [task for task in tasks if not exists(first_piece(folder, task.shard))]
    total = sum(task.shard.size for task in tasks)
    for _ in local.run(
        _write_shard,
        tasks,
        execution.processes(total),
        lambda done: execution.progress("writing the subset", done, total),
    ):
        pass


def _check_same_subset(plan: Plan, folder: str) -> None:
    """A folder holds shards of one subset: refuse to go on where scores or the quota changed since it was begun."""
    hashed = xxhash.xxh3_128()
    for number in np.flatnonzero(plan.kept).tolist():
        hashed.update(f"{plan.pool.files[number].header.shard['name']}\n".encode())
        hashed.update(mask_file(plan.masks, number).read_bytes())
        if (weights := weights_file(plan.masks, number)).exists():
            hashed.update(weights.read_bytes())
    place = join(folder, _SUBSET)
    if not exists(place):
        with atomic_writer(place) as file:
            file.write(hashed.hexdigest().encode())
        return
    with open_read(place) as there:
        if there.read().decode() != hashed.hexdigest():
            raise UserError(
                f"{folder} holds another subset (the scores or the quota changed since); "
                "choose another -o, or pass --overwrite to replace it"
            )


class _Mask:
    """The kept rows of one shard, in order."""

    def __init__(self, task: _Task) -> None:
        self._task = task
        self._bits = np.fromfile(task.mask, np.uint8)
        self._weights = np.fromfile(task.weights, np.float32) if task.weights else np.empty(0, np.float32)
        self._at = 0

    def take(self, rows: Lines | pa.RecordBatch) -> tuple[Lines | pa.RecordBatch, npt.NDArray[np.bool_]]:
        """The next rows, and bool (n,): which of them are kept. Where there are weights, only these, with theirs."""
        first, self._at = self._at, self._at + len(rows)
        if self._at > self._task.rows:
            raise changed(self._task.shard)
        kept = unpacked(self._bits, first, self._at)
        if not self._task.weights:
            return rows, kept
        count = int(kept.sum())
        weights, self._weights = self._weights[:count], self._weights[count:]
        return _weighted(rows, kept, self._task, weights), np.ones(count, np.bool_)

    def finish(self) -> None:
        """Check that the shard had all the rows that were scored."""
        if self._at != self._task.rows:
            raise changed(self._task.shard)


def _weighted(
    rows: Lines | pa.RecordBatch, kept: npt.NDArray[np.bool_], task: _Task, weights: npt.NDArray[np.float32]
) -> Lines | pa.RecordBatch:
    """The rows that are kept, each with its weight."""
    field = task.weight_field
    if not isinstance(rows, Lines):
        return with_column(rows.filter(pa.array(kept)), field, weights, task.shard.url)
    there = extract(rows.data, rows.starts, rows.ends, [field]).columns[field].kind != Kind.MISSING
    numbered = zip(np.flatnonzero(kept).tolist(), weights, strict=True)
    return Lines.of([with_member(rows[row], field, as_json(weight), bool(there[row])) for row, weight in numbered])


def _write_shard(task: _Task) -> None:
    """Copy the kept rows of one shard into its output shards."""
    mask = _Mask(task)
    with ShardWriter(task.folder, task.shard, task.cap) as writer:
        for rows in _rows_of(task):
            taken, kept = mask.take(rows)
            if isinstance(taken, Lines):
                writer.write_lines(taken, kept)
            else:
                writer.write_table(taken, kept)
        mask.finish()


def _print_shard(task: _Task) -> None:
    """Copy the kept rows of one shard to stdout, as JSON Lines."""
    mask = _Mask(task)
    for rows in _rows_of(task):
        taken, flags = mask.take(rows)
        if isinstance(taken, Lines):
            lines: Iterable[bytes] = (taken[row] + b"\n" for row in np.flatnonzero(flags).tolist())
        else:
            lines = json_lines(taken.filter(pa.array(flags)), task.shard.url)
        sys.stdout.buffer.write(b"".join(lines))
    mask.finish()


def _rows_of(task: _Task) -> Iterator[Lines | pa.RecordBatch]:
    """The rows of a shard as they stand in it. Raises UserError at the end where it does not hold what was scored."""
    was = ScoreFile(task.scores)
    digests = []
    if task.shard.format == "jsonl":
        for begin, end in task.ranges:
            with LineReader(task.shard, begin=begin, end=end, on_read=local.advance) as reader:
                yield from reader
                digests.append(reader.digest())
    else:
        # The digest of a Parquet file is that of its footer, so each row's own number is compared too.
        reading = dataclasses.replace(Reading(**was.header.reading), on_bad_line="skip")
        tokens_field = TokenCounter.of(was.header.tokens).field
        paths, numbers = paths_to_read(reading, tokens_field), _Keys(was)
        with DocumentReader(task.shard, paths, whole_rows=True, on_read=local.advance) as tables:
            for batch in read_pool(tables, task.shard, reading, tokens_field=tokens_field):
                if not numbers.follow(batch.key):
                    raise changed(task.shard)
                assert batch.documents.table is not None
                yield batch.documents.table
            digests.append(tables.digest())
    if digest_of_parts(digests) != was.header.shard["digest"]:
        raise changed(task.shard)


class _Keys:
    """The documents' own numbers, as a score file has them. Those of the first versions came about in another way."""

    def __init__(self, file: ScoreFile) -> None:
        self._parts = file.rows(("key",)) if file.header.digests else None
        self._left = np.empty(0, np.uint64)

    def follow(self, key: npt.NDArray[np.uint64]) -> bool:
        """Whether the next rows have these."""
        if self._parts is None:
            return True
        while len(self._left) < len(key) and (rows := next(self._parts, None)) is not None:
            self._left = np.concatenate([self._left, rows.key])
        now, self._left = self._left[: len(key)], self._left[len(key) :]
        return np.array_equal(now, key)


def report_on(plan: Plan, run: SelectRun) -> SelectReport:
    """What the plan keeps, in numbers."""
    header = plan.pool.files[0].header
    totals = Totals()
    for file in plan.pool.files:
        totals.add(file.header.totals)
    domains = domains_of(plan)
    weighted = bool(plan.tally.log_weights)
    given = sum(plan.kept)
    strata, threshold_is = _with_thresholds(plan)
    return SelectReport(
        scorer=header.scorer,
        selector={"name": name_of(SELECTORS, type(plan.rule.selector)), **to_mapping(plan.rule.selector)},
        seed=run.seed,
        budget=_echo(plan),
        unit=plan.rule.unit,
        asked=plan.asked,
        pool={unit: plan.pool.total(unit) for unit in ("docs", "tokens", "bytes")},
        given={
            "docs": given,
            "tokens": sum(share.kept_tokens for share in domains.values()),
            "bytes": sum(int(row[4]) for row in plan.tally.domains.values()),
        },
        took_all=plan.budget is not None and run.quota is None and _took_all(plan),
        duplicates=plan.tally.duplicates,
        tokens=TokenCounter.of(header.tokens).method,
        unscored=header.unscored,
        totals=dataclasses.replace(totals, named=[]),
        domains=domains,
        strata=strata,
        threshold_is=threshold_is,
        histogram=histogram_of(plan),
        effective_sample_size=plan.tally.effective_sample_size() if weighted else None,
        overlap=plan.tally.overlap / max(given, 1) if weighted else None,
        notes=plan.notes,
        skipped=[(file.header.shard["url"], *line) for file in plan.pool.files for line in file.header.totals.named],
    )


def _took_all(plan: Plan) -> bool:
    """Whether the budget was more than enough; a rule that sees the set may have given few documents a key."""
    is_set = isinstance(plan.rule.selector, SetSelector)
    return plan.took_all and not (is_set and sum(plan.kept) < plan.pool.total("docs"))


def _with_thresholds(plan: Plan) -> tuple[list[dict[str, Any]], str]:
    """The plan's strata, their thresholds as scores where keys tell these; and what they are, in words."""
    selector = plan.rule.selector
    if selector.score_of(0.0) is None:
        return plan.strata, "key with noise" if selector.noisy else "key"
    keys = [stratum["threshold"] for stratum in plan.strata]
    scores = [None if key is None else selector.score_of(key) for key in keys]
    return [stratum | {"threshold": score} for stratum, score in zip(plan.strata, scores, strict=True)], "score"


def _echo(plan: Plan) -> str:
    if plan.budget:
        return plan.budget.echo(plan.pool.total(plan.rule.unit))
    asked = [stratum["asked"] for stratum in plan.strata]
    return f"quotas of {sum(asked):,} {plan.rule.unit}" if None not in asked else "no budget"


def domains_of(plan: Plan) -> dict[str, Share]:
    """Documents and tokens of each domain, by name."""
    return {
        name: Share(docs, kept_docs, tokens, kept_tokens)
        for name, (docs, tokens, kept_docs, kept_tokens, _) in sorted(
            (name, row.tolist()) for name, row in plan.tally.domains.items()
        )
    }


def histogram_of(plan: Plan) -> dict[str, list[float]]:
    """The score's values: edges of the bins, documents of the pool and kept ones in each."""
    pool, kept = plan.tally.histogram.tolist()
    edges = np.linspace(plan.tally.low, plan.tally.high, len(pool) + 1).tolist()
    return {"edges": edges, "pool": pool, "kept": kept}
