"""Score shards with a fitted scorer: one score file beside each."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dvsel import __version__
from dvsel.documents.tokens import TokenCounter
from dvsel.errors import UserError
from dvsel.interface.scorer import Fitted
from dvsel.options import among, files_named
from dvsel.pool.annotate import Tokens, rows_of, token_counter, write_beside
from dvsel.pool.fields import sparse
from dvsel.pool.read import PoolBatch
from dvsel.runs import fitted_files as storage
from dvsel.runs.output_folder import REPORT, working_in
from dvsel.runs.recipe import dump
from dvsel.runs.report import ScoreReport, write_json
from dvsel.runs.requests import Execution, Reading, ScoreRun
from dvsel.score_files.header import Header, ReadingRecord
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import Rows, Totals
from dvsel.storage.places import Shard, join


class Write(Protocol):
    """Writes the score files, as `write_beside` does; returns what the summary should say of it too."""

    def __call__(
        self, shards: Sequence[Shard], annotator: ScoreAnnotator, header: Header, workers: int
    ) -> tuple[list[ScoreFile], list[str]]: ...


@dataclass(frozen=True, slots=True)
class ScoreAnnotator:
    """Annotates documents with the scores of a fitted scorer. place: of its file, loaded once in each process."""

    place: str
    fingerprint: str
    reading: Reading
    counter: TokenCounter

    @property
    def _fitted(self) -> Fitted:
        return _load_fitted(self.place, self.fingerprint)

    @property
    def paths(self) -> tuple[str, ...]:
        """The fields that the scorer needs."""
        return self._fitted.scorer.needs

    @property
    def is_slow(self) -> bool:
        """True for a scorer that runs a model."""
        return self._fitted.scorer.uses_all_cores

    def annotate(self, batch: PoolBatch, tokens: Tokens) -> Rows:
        """The rows of a batch with their scores."""
        scores, status = batch.score(self._fitted)
        return rows_of(batch, tokens, scores, status, self.reading)


def check_scored(place: str, files: Sequence[ScoreFile]) -> None:
    """Raise UserError where there are documents and none has a score."""
    totals, unscored = Totals(), files[0].header.unscored
    for file in files:
        totals.add(file.header.totals)
    if totals.rows and not totals.docs:
        causes = {"unscored": unscored, "empty_text": "empty text", "bad_line": "bad lines"}
        why = ", ".join(f"{count:,} {causes[name]}" for name, count in totals.status.items())
        raise UserError(
            f"{place}: none of {totals.rows:,} documents has a score ({why}), so nothing can be selected; "
            "check --text-field and the scorer's options"
        )


def _processes(fitted: Fitted, shards: Sequence[Shard], execution: Execution) -> int:
    """Number of processes that the scorer asks for, else one a core."""
    asked = fitted.scorer.processes_for(embedded=all(shard.vectors for shard in shards))
    return asked or execution.processes(sum(shard.size for shard in shards))


def _header(fitted: Fitted, fingerprint: str, reading: Reading, counter: TokenCounter) -> Header:
    return Header(
        version=__version__,
        scorer=storage.title_of(fitted),
        fingerprint=fingerprint,
        groups=fitted.groups,
        shares=fitted.shares,
        selector=fitted.selector,
        unscored=fitted.unscored,
        reading=among(ReadingRecord, reading),
        tokens=counter,
    )


@functools.lru_cache(maxsize=1)
def _load_fitted(place: str, fingerprint: str) -> Fitted:
    fitted, found = storage.load(place)
    if found != fingerprint:
        raise UserError(f"{place} changed while it was in use; start again")
    return fitted


def score_into(
    run: ScoreRun,
    shards: Sequence[Shard],
    execution: Execution,
    fitted_file: Callable[[], str],
    write: Write | None = None,
) -> ScoreReport:
    """Score shards into `run.output`, where finished ones of the same run are kept.

    fitted_file: gives the place of the fitted scorer once the folder is the run's. write: None for one pass over all.
    Raises UserError where no document has a score.
    """
    with working_in(run.output, dump("score", run), execution.overwrite, files_named(run)):
        place = fitted_file()
        fitted, fingerprint = storage.load(place)
        counter = token_counter(run.counting, run.reading, run.sampling, shards, execution)
        annotator = ScoreAnnotator(place, fingerprint, run.reading, counter)
        header = _header(fitted, fingerprint, run.reading, counter)
        workers = execution.workers or _processes(fitted, shards, execution)
        notes = list[str]()
        if write:
            files, notes = write(shards, annotator, header, workers)
        else:
            files = write_beside(shards, annotator, header, run.output, workers, "scoring")
        report = ScoreReport.of(files)
        report = dataclasses.replace(report, notes=[*notes, *sparse(report.totals)])
        write_json(report, join(run.output, REPORT))
    if report.totals.status.get("unscored"):  # a pool without texts is no fault of the scorer
        check_scored(run.output, files)
    return report
