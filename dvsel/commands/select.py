"""Select under a budget: score files in, or a pool that is scored first, and the chosen subset out as shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from dvsel.budgets.quota import OTHERS, Quota
from dvsel.commands.fit import check_fit
from dvsel.commands.score import check, score
from dvsel.errors import UserError
from dvsel.options import changed, flattened, refuse_unread
from dvsel.pool.counting import check_counting, check_scored_pool, count
from dvsel.pool.dry_run import Forecast, forecast
from dvsel.pool.fields import check_fields
from dvsel.pool.sources import expand_pool, is_embedded
from dvsel.runs.output_folder import REPORT, working_in
from dvsel.runs.recipe import dump
from dvsel.runs.report import SelectReport, write_json
from dvsel.runs.requests import Execution, ScoreRun, SelectRun, Targeting
from dvsel.runs.scopes import takes_documents
from dvsel.score_files.find import SCORES
from dvsel.selection.from_scores import Sources, Terms, inputs_of, select_from, select_from_scores
from dvsel.selection.write_subset import STDOUT
from dvsel.storage.places import Shard, join


def select(run: SelectRun, execution: Execution, given: Collection[str] | None = None) -> SelectReport | Forecast:
    """Select from score files, or, where the run names a scorer, from a pool that is scored first.

    given: the options that were asked for, which are honoured or refused; None for those that differ from the default.
    """
    given = changed(run) if given is None else given
    refuse_unread(run, given)
    counts = takes_documents(flattened(run))
    if not counts:
        check_scored_pool(run)
        if run.scorer is None and run.scoring.fitted is None:
            return select_from_scores(run, execution, given)
    return _select_from_pool(run, execution, counts)


def _select_from_pool(run: SelectRun, execution: Execution, counts: bool) -> SelectReport | Forecast:
    """Score the pool, or count it, and select from that."""
    terms = Terms.of(run)
    if run.scorer and not run.scoring.fitted:
        check_fit(run.score_run.fit_run)
    if execution.dry_run:
        return forecast(expand_pool(run.pool), run.reading, dump("select", run))
    if run.output == STDOUT:
        raise UserError("scoring a pool, or counting it, leaves score files; name a folder with -o, or score first")
    _check_domain_field(check_counting(run) if counts else check(_score_part(run)), run, terms.quota)
    with working_in(run.output, dump("select", run), execution.overwrite, inputs_of(run)):
        report = select_from(_scored(run, execution), run, terms, execution)
        write_json(report, join(run.output, REPORT))
    return report


def _check_domain_field(shards: Sequence[Shard], run: SelectRun, quota: Quota | None) -> None:
    """Raise UserError where a quota is for domains that a pool to be scored does not have."""
    if quota and set(quota.parts) != {OTHERS}:
        check_fields(shards, {run.reading.domain_field: "--domain-field"})


def _scored(run: SelectRun, execution: Execution) -> Sources:
    """Score or count the pool into a folder inside the output; the files, whose shards are where the run names them."""
    if run.scorer or run.scoring.fitted:
        score(_score_part(run), execution)
    else:
        count(_score_part(run), expand_pool(run.pool), execution)
    vectors = tuple(pattern for pattern in run.pool if is_embedded(pattern))
    scoring = dataclasses.replace(run.scoring, moved=run.scoring.moved if vectors else run.pool)
    run = dataclasses.replace(run, embeddings=run.embeddings or vectors, scoring=scoring)
    return Sources.of((join(run.output, SCORES),), run)


def _score_part(run: SelectRun) -> ScoreRun:
    """The run without what is for the selector alone."""
    targeting = run.targeting if run.fitting.target else Targeting()
    return dataclasses.replace(run.score_run, targeting=targeting, output=join(run.output, SCORES))
