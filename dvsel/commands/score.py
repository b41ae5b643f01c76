"""Score a pool: shards in, one score file beside each out."""

from __future__ import annotations

from collections.abc import Sequence

from dvsel.commands.fit import check_fit, fit_scorer, reads_pool
from dvsel.errors import UserError
from dvsel.interface.registry import SCORERS, name_of
from dvsel.options import refuse_unread
from dvsel.pool.dry_run import Forecast, forecast
from dvsel.pool.fields import check_fields, named_fields
from dvsel.pool.fitting import kept_fit
from dvsel.pool.scoring import ScoreAnnotator, Write, score_into
from dvsel.pool.sources import expand_pool
from dvsel.runs import fitted_files as storage
from dvsel.runs.output_folder import STEPS
from dvsel.runs.recipe import dump
from dvsel.runs.report import ScoreReport
from dvsel.runs.requests import Execution, ScoreRun
from dvsel.score_files.header import Header
from dvsel.score_files.reader import ScoreFile
from dvsel.storage.manifest import home
from dvsel.storage.places import Shard, is_remote, join

_SHARE = 0.25  # of the documents, that --adaptive scores


def check(run: ScoreRun) -> list[Shard]:
    """The pool's shards. Raises UserError for what can be seen to be wrong before anything is written."""
    refuse_unread(run)
    fitted = run.scoring.fitted
    if not fitted:
        check_fit(run.fit_run)
    shards = expand_pool(run.pool, run.scoring.moved)
    _check_adaptive(run, shards)
    scorer = storage.load(fitted)[0].scorer if fitted else run.scorer
    check_fields(shards, named_fields(run.reading, run.counting.tokens_field, scorer))
    for pattern in run.fitting.target:
        expand_pool([pattern])
    return shards


def score(run: ScoreRun, execution: Execution) -> ScoreReport | Forecast:
    """Score the pool into `run.output`, where finished shards of the same run are kept."""
    shards = check(run)
    if execution.dry_run:
        return forecast(shards, run.reading, dump("score", run))
    write = _adaptively(run) if run.scoring.adaptive else None
    return score_into(run, shards, execution, lambda: _fitted_file(run, shards, execution), write)


def _fitted_file(run: ScoreRun, shards: list[Shard], execution: Execution) -> str:
    """The fitted scorer to use: the one given, the one that an earlier start left, or a new one."""
    if run.scoring.fitted:
        return run.scoring.fitted
    fit = run.fit_run
    return kept_fit(
        run,
        shards if reads_pool(fit) else [],
        run.output,
        storage.default_name(name_of(SCORERS, type(run.scorer))),
        lambda: fit_scorer(fit, shards, execution, join(home(run.output), STEPS)),
    )


def _adaptively(run: ScoreRun) -> Write:
    """Return a function that writes the scores of a part of the pool."""

    def write(
        shards: Sequence[Shard], annotator: ScoreAnnotator, header: Header, workers: int
    ) -> tuple[list[ScoreFile], list[str]]:
        from dvsel.commands.adaptive import score_part  # which needs torch

        return score_part(run, shards, annotator, header, workers, _share(run))

    return write


def _share(run: ScoreRun) -> float:
    return _SHARE if run.scoring.adaptive_share is None else run.scoring.adaptive_share


def _check_adaptive(run: ScoreRun, shards: Sequence[Shard]) -> None:
    """Raise UserError for a pool that has no clusters, and for options that do not suit."""
    if not run.scoring.adaptive:
        return
    if not all(shard.vectors for shard in shards):
        raise UserError(
            "--adaptive goes by clusters of embeddings; embed the pool (dvsel embed) and name emb/ as the pool"
        )
    if run.fitting.distil:
        raise UserError("--distil makes scoring cheap, --adaptive scores a part; choose one of the two")
    if is_remote(run.output):
        raise UserError(f"{run.output}: --adaptive works in a local folder; name one with -o, and copy it after")
