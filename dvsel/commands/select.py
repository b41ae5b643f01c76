"""Select under a budget: score files in, the chosen subset out as shards.

Which rows are kept is decided from score files alone, in streamed passes; then each shard is read once more and the
kept lines are copied out. The subset depends on documents, scores and the seed: not on sharding, order or workers.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dvsel.budget import Budget
from dvsel.budgets.quota import OTHERS, Quota, is_inline
from dvsel.commands.fit import check_fit
from dvsel.commands.score import check, check_scored, score
from dvsel.documents.columns import Status
from dvsel.documents.hashing import mix
from dvsel.errors import UserError
from dvsel.interface.checked import follows_scores
from dvsel.interface.registry import SELECTORS, name_of, selector_class
from dvsel.interface.selector import Selector, SetSelector
from dvsel.options import among, changed, fields_of, files_named, flag_of, refuse_unread, to_mapping
from dvsel.pool.counting import NO_SCORES, check_counting, check_scored_pool, count
from dvsel.pool.dry_run import Forecast, forecast
from dvsel.pool.fields import check_fields, sparse
from dvsel.pool.locate import Relocated
from dvsel.pool.sources import expand_pool, is_embedded
from dvsel.progress import Done
from dvsel.runs.output_folder import REPORT, working_in
from dvsel.runs.recipe import dump
from dvsel.runs.report import SelectReport, Share, unread_of, write_json
from dvsel.runs.requests import Execution, Reading, ScoreRun, SelectRun, reading_of_targets
from dvsel.runs.scopes import takes_documents
from dvsel.score_files.find import SCORES, row_files
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import Rows, Totals
from dvsel.selection.dedup import Chunk, Drops, duplicates
from dvsel.selection.domains import check_domains
from dvsel.selection.plan import Plan, check_budget
from dvsel.selection.ranking import Pool
from dvsel.selection.write_subset import STDOUT, write_subset
from dvsel.storage.manifest import home
from dvsel.storage.places import Shard, is_remote, join, make_folder, remove

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
        quota = Quota.parse(run.quota) if run.quota else None
        if run.scorer and not run.fitted:
            check_fit(run)
        if run.selector:
            check_budget(run.selector, budget, quota)
        cap = Budget.parse(run.shard_size, "--shard-size")
        if cap.unit != "bytes" or cap.amount is None:
            raise UserError(f"--shard-size is {run.shard_size}; give a size in bytes, such as 1GB")
        return cls(budget, quota, cap.amount)


def select(run: SelectRun, execution: Execution, given: Collection[str] | None = None) -> SelectReport | Forecast:
    """Select from score files, or, where the run names a scorer, from a pool that is scored first.

    given: the options that were asked for, which are honoured or refused; None for those that differ from the default.
    """
    given = changed(run) if given is None else given
    refuse_unread(run, given)
    terms = _Terms.of(run)
    if not (counts_first := takes_documents(run)):
        check_scored_pool(run)
    scores_first = counts_first or run.scorer is not None or run.fitted is not None
    if execution.dry_run and scores_first:
        return forecast(expand_pool(run.pool), run, dump("select", run))
    if execution.dry_run or run.output == STDOUT:
        if scores_first:
            raise UserError("scoring a pool, or counting it, leaves score files; name a folder with -o, or score first")
        return _select_from(*_opened(run, given), terms, execution)
    sources: _Sources | None = None
    if scores_first:
        _check_domain_field(check_counting(run) if counts_first else check(_score_part(run)), run, terms.quota)
    else:
        sources, run = _opened(run, given)
    inputs = files_named(run, ("quota",) if run.quota and is_inline(run.quota) else ())
    with working_in(run.output, dump("select", run), execution.overwrite, inputs):
        if sources is None:
            sources = _scored(run, execution)
        report = _select_from(sources, run, terms, execution)
        write_json(report, join(run.output, REPORT))
    return report


def _check_domain_field(shards: Sequence[Shard], run: SelectRun, quota: Quota | None) -> None:
    """Raise UserError where a quota is for domains that a pool to be scored does not have."""
    if quota and set(quota.parts) != {OTHERS}:
        check_fields(shards, {run.domain_field: "--domain-field"})


def _scored(run: SelectRun, execution: Execution) -> _Sources:
    """Score or count the pool into a folder inside the output; the files, whose shards are where the run names them."""
    if run.scorer or run.fitted:
        score(_score_part(run), execution)
    else:
        count(_score_part(run), expand_pool(run.pool), execution)
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
        check_scored(sources[0], pool.files)
        return cls(
            pool, selector, _vectors(pool, selector, run.embeddings), Relocated(run.moved) if run.moved else None
        )


def _select_from(sources: _Sources, run: SelectRun, terms: _Terms, execution: Execution) -> SelectReport:
    pool, selector = sources.pool, sources.selector
    if terms.quota:
        check_domains(pool, terms.quota)
    with ExitStack() as stack:
        scratch = stack.enter_context(_scratch(run, execution))
        execution.progress("choosing documents", Done(), 0)
        drops = stack.enter_context(_duplicates(pool, run.seed, terms.quota, scratch)) if run.dedup else None
        threads, reading = execution.processes(), reading_of_targets(run)
        plan = Plan.make(
            *(pool, selector, run.seed, scratch, terms.budget, terms.quota, drops, threads, sources.vectors, reading)
        )
        if not execution.dry_run:
            write_subset(plan, run.output, terms.cap, execution, sources.places)
        return report_on(plan, run)


def _opened(run: SelectRun, given: Collection[str]) -> tuple[_Sources, SelectRun]:
    """What the run selects from, and the run with the words by which documents were read when they were scored.

    Raises UserError for options that say otherwise, or that nothing looks at.
    """
    sources = _Sources.of(run.pool, run)
    file, selector = sources.pool.files[0], sources.selector
    reads_more = isinstance(selector, SetSelector) and bool(files_named(selector))
    if "embeddings" in given and not (isinstance(selector, SetSelector) and selector.looks_at_vectors):
        raise UserError("--embeddings: this method looks at no vectors; drop it, or choose another --method")
    for name, (field, _) in fields_of(Reading).items():
        value, was = getattr(run, name), getattr(file.header.reading, name)
        if value == was or (reads_more and name != "domain_field"):
            continue
        if name in given:
            raise UserError(
                f"--{flag_of(field)} {value}: {file.url} was made with {was}; drop it, or score again with it"
            )
        run = dataclasses.replace(run, **{name: was})
    return sources, run


def _check_scores(pool: Pool, selector: Selector) -> None:
    """Raise UserError for a rule that goes by scores where there are none."""
    by_scores = not isinstance(selector, SetSelector) and follows_scores(selector)
    header = pool.files[0].header
    if by_scores and (header.embedding or header.scorer == NO_SCORES):
        what = "vectors" if header.embedding else "token counts"
        raise UserError(
            f"{pool.files[0].url} holds {what} and no scores; score first, or choose a --method that looks at vectors"
        )


def _vectors(pool: Pool, selector: Selector, embeddings: Sequence[str]) -> list[ScoreFile]:
    """The files of vectors beside the pool's, for a selector that looks at them."""
    if not (isinstance(selector, SetSelector) and selector.looks_at_vectors):
        return []
    from dvsel.selection.candidate_passes import beside  # which needs torch

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
    """The run without what is for the selector alone."""
    of_targets = run.target_text_field if run.target else None
    return dataclasses.replace(among(ScoreRun, run), target_text_field=of_targets, output=join(run.output, SCORES))


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
        tokens=header.tokens.method,
        unscored=header.unscored,
        totals=dataclasses.replace(totals, named=[]),
        domains=domains,
        strata=strata,
        threshold_is=threshold_is,
        histogram=histogram_of(plan),
        effective_sample_size=plan.tally.effective_sample_size() if weighted else None,
        overlap=plan.tally.overlap / max(given, 1) if weighted else None,
        notes=[*plan.notes, *sparse(totals)],
        unread=unread_of(plan.pool.files),
        skipped=[(file.header.shard.url, *line) for file in plan.pool.files for line in file.header.totals.named],
        reading=dataclasses.asdict(header.reading),
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
        name: Share(docs, kept_docs, tokens, kept_tokens, unscored)
        for name, (docs, tokens, kept_docs, kept_tokens, _, unscored) in sorted(
            (name, row.tolist()) for name, row in plan.tally.domains.items()
        )
    }


def histogram_of(plan: Plan) -> dict[str, list[float]]:
    """The score's values: edges of the bins, documents of the pool and kept ones in each; how many are outside."""
    pool, kept = plan.tally.histogram.tolist()
    edges = np.linspace(plan.tally.low, plan.tally.high, len(pool) + 1).tolist()
    return {"edges": edges, "pool": pool, "kept": kept, "outliers": plan.tally.outliers.tolist()}
