"""Score a pool: shards in, one score file beside each out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

from dvsel import __version__
from dvsel.commands.fit import check_fit, fit_scorer, kept_fit, reads_pool
from dvsel.documents.tokens import TokenCounter
from dvsel.errors import UserError
from dvsel.interface.registry import SCORERS, name_of
from dvsel.interface.scorer import Fitted
from dvsel.options import among, files_named, refuse_unread, to_mapping
from dvsel.pool.annotate import Tokens, rows_of, token_counter, write_beside
from dvsel.pool.dry_run import Forecast, forecast
from dvsel.pool.fields import check_fields, named_fields, sparse
from dvsel.pool.read import PoolBatch
from dvsel.pool.sources import expand_pool
from dvsel.runs import fitted_files as storage
from dvsel.runs.output_folder import REPORT, STEPS, working_in
from dvsel.runs.recipe import dump
from dvsel.runs.report import ScoreReport, write_json
from dvsel.runs.requests import Execution, Reading, ScoreRun
from dvsel.score_files.score_file import Header, Rows, ScoreFile, Totals
from dvsel.storage.manifest import home
from dvsel.storage.places import Shard, is_remote, join

_SHARE = 0.25  # that --adaptive scores


@dataclass(frozen=True, slots=True)
class _Scoring:
    """Annotates documents with the scores of a fitted scorer."""

    place: str
    fingerprint: str
    reading: Reading
    counter: TokenCounter

    @property
    def _fitted(self) -> Fitted:
        return _load_fitted(self.place, self.fingerprint)

    @property
    def paths(self) -> tuple[str, ...]:
        return self._fitted.scorer.needs

    @property
    def tokens_field(self) -> str:
        return self.counter.field

    @property
    def is_slow(self) -> bool:
        return self._fitted.scorer.uses_all_cores

    def annotate(self, batch: PoolBatch, tokens: Tokens) -> Rows:
        scores, status = batch.score(self._fitted)
        return rows_of(batch, tokens, scores, status, self.reading)


def check(run: ScoreRun) -> list[Shard]:
    """The pool's shards. Raises UserError for what can be seen to be wrong before anything is written."""
    refuse_unread(run)
    if not run.fitted:
        check_fit(run)
    shards = expand_pool(run.pool, run.moved)
    _check_adaptive(run, shards)
    scorer = storage.load(run.fitted)[0].scorer if run.fitted else run.scorer
    check_fields(shards, named_fields(run, run.tokens_field, scorer))
    for pattern in run.target:
        expand_pool([pattern])
    return shards


def score(run: ScoreRun, execution: Execution) -> ScoreReport | Forecast:
    """Score the pool into `run.output`, where finished shards of the same run are kept."""
    shards = check(run)
    if execution.dry_run:
        return forecast(shards, run, dump("score", run))
    with working_in(run.output, dump("score", run), execution.overwrite, files_named(run)):
        place = _fitted_file(run, shards, execution)
        fitted, fingerprint = storage.load(place)
        reading, counter = among(Reading, run), token_counter(run, run, run, shards, execution)
        header = _header(fitted, fingerprint, reading, counter)
        workers = execution.workers or _processes(fitted, shards, execution)
        scoring = _Scoring(place, fingerprint, reading, counter)
        files, notes = _score(run, shards, scoring, header, workers, execution)
        report = ScoreReport.of(files)
        report = dataclasses.replace(report, notes=[*notes, *sparse(report.totals)])
        write_json(report, join(run.output, REPORT))
    if report.totals.status.get("unscored"):  # a pool without texts is no fault of the scorer
        check_scored(run.output, files)
    return report


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


def _check_adaptive(run: ScoreRun, shards: Sequence[Shard]) -> None:
    """Raise UserError for a pool that has no clusters, and for options that do not suit."""
    if not run.adaptive:
        return
    if not all(shard.vectors for shard in shards):
        raise UserError(
            "--adaptive goes by clusters of embeddings; embed the pool (dvsel embed) and name emb/ as the pool"
        )
    if run.distil:
        raise UserError("--distil makes scoring cheap, --adaptive scores a part; choose one of the two")
    if not 0 < (share := _share(run)) <= 1:
        raise UserError(f"--adaptive-share {share}: no share of a pool; give more than 0, and 1 at most")
    if run.adaptive_clusters is not None and run.adaptive_clusters < 2:
        raise UserError(f"--adaptive-clusters {run.adaptive_clusters}: nothing to choose from; give 2 or more")
    if is_remote(run.output):
        raise UserError(f"{run.output}: --adaptive works in a local folder; name one with -o, and copy it after")


def _share(run: ScoreRun) -> float:
    return _SHARE if run.adaptive_share is None else run.adaptive_share


def _score(
    run: ScoreRun, shards: Sequence[Shard], scoring: _Scoring, header: Header, workers: int, execution: Execution
) -> tuple[list[ScoreFile], list[str]]:
    """The score files, and what the summary should say of how they came about."""
    if not run.adaptive:
        return write_beside(shards, scoring, header, run.output, workers, execution.progress, "scoring"), []
    from dvsel.commands.adaptive import score_part  # which needs torch

    return score_part(run, shards, scoring, header, workers, execution.progress, _share(run))


def _processes(fitted: Fitted, shards: Sequence[Shard], execution: Execution) -> int:
    """How many processes the scorer asks for, else one a core."""
    asked = fitted.scorer.processes_for(embedded=all(shard.vectors for shard in shards))
    return asked or execution.processes(sum(shard.size for shard in shards))


def _fitted_file(run: ScoreRun, shards: list[Shard], execution: Execution) -> str:
    """The fitted scorer to use: the one given, the one that an earlier start left, or a new one."""
    if run.fitted:
        return run.fitted
    place = storage.default_name(name_of(SCORERS, type(run.scorer)))
    return kept_fit(
        run,
        shards if reads_pool(run) else [],
        run.output,
        place,
        lambda: fit_scorer(run, shards, execution, join(home(run.output), STEPS)),
    )


def _header(fitted: Fitted, fingerprint: str, reading: Reading, counter: TokenCounter) -> Header:
    return Header(
        version=__version__,
        shard={},
        scorer=storage.title_of(fitted),
        fingerprint=fingerprint,
        groups=fitted.groups,
        shares=fitted.shares,
        selector=fitted.selector,
        unscored=fitted.unscored,
        reading=to_mapping(reading),
        tokens=dataclasses.asdict(counter),
    )


@functools.lru_cache(maxsize=1)
def _load_fitted(place: str, fingerprint: str) -> Fitted:
    fitted, found = storage.load(place)
    if found != fingerprint:
        raise UserError(f"{place} changed while it was in use; start again")
    return fitted
