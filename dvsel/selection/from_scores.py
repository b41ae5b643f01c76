"""Select from score files: the chosen subset out as shards.

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

from dvsel.budget import Budget
from dvsel.budgets.quota import Quota, is_inline
from dvsel.documents.columns import Status
from dvsel.documents.hashing import mix
from dvsel.errors import UserError
from dvsel.interface.checked import follows_scores
from dvsel.interface.registry import selector_class
from dvsel.interface.selector import Selector, SetSelector
from dvsel.options import changed, fields_of, files_named, flag_of
from dvsel.pool.counting import NO_SCORES
from dvsel.pool.locate import Relocated
from dvsel.pool.scoring import check_scored
from dvsel.progress import tell
from dvsel.runs.output_folder import REPORT, working_in
from dvsel.runs.recipe import dump
from dvsel.runs.report import SelectReport, write_json
from dvsel.runs.requests import Execution, Reading, SelectRun
from dvsel.score_files.find import row_files
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import Rows
from dvsel.selection.dedup import Drops, TextChunk, duplicates
from dvsel.selection.domains import check_domains
from dvsel.selection.plan import Plan, check_budget
from dvsel.selection.scored_pool import Pool
from dvsel.selection.summary import report_on
from dvsel.selection.write_subset import STDOUT, write_subset
from dvsel.storage.manifest import home
from dvsel.storage.places import is_remote, join, make_folder, remove

_NO_RULE = "topk"  # of files that no scorer wrote


@dataclass(frozen=True)
class Terms:
    """The run's budget, quota and cap on shards, read before any work is done."""

    budget: Budget | None
    quota: Quota | None
    cap: int

    @classmethod
    def of(cls, run: SelectRun) -> Terms:
        """Read the terms of a run. Raises UserError for those that cannot be, or do not go together."""
        budget = Budget.parse(run.budget) if run.budget else None
        quota = Quota.parse(run.quota) if run.quota else None
        if run.selector:
            check_budget(run.selector, budget, quota)
        cap = Budget.parse(run.shard_size, "--shard-size")
        if cap.unit != "bytes" or cap.amount is None:
            raise UserError(f"--shard-size is {run.shard_size}; give a size in bytes, such as 1GB")
        return cls(budget, quota, cap.amount)


@dataclass(frozen=True)
class Sources:
    """Inputs of a selection.

    vectors: files beside the pool's, for a rule that looks at them. places: where shards lie that were moved.
    """

    pool: Pool
    selector: Selector
    vectors: list[ScoreFile]
    places: Relocated | None

    @classmethod
    def of(cls, sources: Sequence[str], run: SelectRun) -> Sources:
        """Open the sources. Raises UserError where they do not go together."""
        pool = Pool.of([ScoreFile(url) for source in sources for url in row_files(source, run.partial)])
        selector = run.selector or selector_class(pool.files[0].header.selector or _NO_RULE)()
        _check_scores(pool, selector)
        check_scored(sources[0], pool.files)
        moved = run.scoring.moved
        return cls(pool, selector, _vectors(pool, selector, run.embeddings), Relocated(moved) if moved else None)


def select_from(sources: Sources, run: SelectRun, terms: Terms, execution: Execution) -> SelectReport:
    """Plan the selection, write the subset unless it is a dry run, and return the report."""
    pool, selector = sources.pool, sources.selector
    if terms.quota:
        check_domains(pool, terms.quota)
    with ExitStack() as stack:
        scratch = stack.enter_context(_scratch(run, execution))
        tell("choosing documents")
        drops = stack.enter_context(_duplicates(pool, run.sampling.seed, terms.quota, scratch)) if run.dedup else None
        threads, reading = execution.processes(), run.targeting.reading(run.reading)
        plan = Plan.make(
            pool,
            selector,
            run.sampling.seed,
            scratch,
            terms.budget,
            terms.quota,
            drops,
            threads,
            sources.vectors,
            reading,
        )
        if not execution.dry_run:
            write_subset(plan, run.output, terms.cap, execution, sources.places)
        return report_on(plan, run)


def opened(run: SelectRun, given: Collection[str]) -> tuple[Sources, SelectRun]:
    """Open the inputs of a run, and return them and the run, with documents read as they were when they were scored.

    Raises UserError for options that contradict that, or that nothing looks at.
    """
    sources = Sources.of(run.pool, run)
    file, selector = sources.pool.files[0], sources.selector
    reads_more = isinstance(selector, SetSelector) and bool(files_named(selector))
    if "embeddings" in given and not (isinstance(selector, SetSelector) and selector.looks_at_vectors):
        raise UserError("--embeddings: this method looks at no vectors; drop it, or choose another --method")
    for name, (field, _) in fields_of(Reading).items():
        value, was = getattr(run.reading, name), getattr(file.header.reading, name)
        if value == was or (reads_more and name != "domain_field"):
            continue
        if name in given:
            raise UserError(
                f"--{flag_of(field)} {value}: {file.url} was made with {was}; drop it, or score again with it"
            )
        run = dataclasses.replace(run, reading=dataclasses.replace(run.reading, **{name: was}))
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
    """Return the files of vectors beside the pool's, for a selector that looks at them."""
    if not (isinstance(selector, SetSelector) and selector.looks_at_vectors):
        return []
    from dvsel.selection.candidate_passes import matching_vector_files  # which needs torch

    return matching_vector_files(pool, embeddings)


@contextmanager
def _scratch(run: SelectRun, execution: Execution) -> Iterator[Path]:
    """Give a folder for temporary files, inside the output so that what a kill leaves there is found and removed."""
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


def _duplicates(pool: Pool, seed: int, quota: Quota | None, scratch: Path) -> AbstractContextManager[Drops]:
    """Find the rows that repeat the text of another, among those that have a budget to draw on."""

    def chunk(rows: Rows) -> TextChunk:
        competes = rows.status == Status.SCORED
        if quota:
            competes &= quota.stratum(rows.domains)[rows.domain] >= 0
        return TextChunk(rows.text_hash, mix(rows.key, seed), competes)

    columns = ("key", "text_hash", "status", *(("domain",) if quota else ()))
    chunks = (chunk(rows) for number in range(len(pool.files)) for rows, _ in pool.rows(number, columns))
    return duplicates(chunks, pool.first[-1], scratch)


def select_from_scores(run: SelectRun, execution: Execution, given: Collection[str] | None = None) -> SelectReport:
    """Select from the score files that the run names, into its folder or to stdout.

    given: the options that were asked for, which are honoured or refused; None for those that differ from the default.
    """
    given = changed(run) if given is None else given
    terms = Terms.of(run)
    sources, run = opened(run, given)
    if execution.dry_run or run.output == STDOUT:  # no folder to claim
        return select_from(sources, run, terms, execution)
    with working_in(run.output, dump("select", run), execution.overwrite, inputs_of(run)):
        report = select_from(sources, run, terms, execution)
        write_json(report, join(run.output, REPORT))
    return report


def inputs_of(run: SelectRun) -> list[str]:
    """Return the names of the run's inputs, which nothing may be written over."""
    return files_named(run, ("quota",) if run.quota and is_inline(run.quota) else ())
