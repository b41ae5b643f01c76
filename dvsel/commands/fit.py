"""Fit a scorer: a sample of the pool and the targets in, a small file out."""

from __future__ import annotations

import dataclasses

from dvsel.errors import UserError
from dvsel.interface.registry import SCORERS, name_of
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.options import files_named, refuse_unread
from dvsel.pool.fields import check_fields, named_fields
from dvsel.pool.fitting import fit_at_once, for_vectors, origin_of
from dvsel.pool.sources import expand_pool
from dvsel.runs import fitted_files as storage
from dvsel.runs.output_folder import STEPS
from dvsel.runs.requests import Execution, FitRun
from dvsel.storage.places import Shard, is_remote, local_path


def fit(run: FitRun, execution: Execution) -> Fitted:
    """Fit `run.scorer` and write it to `run.output`."""
    refuse_unread(run)
    check_fit(run)
    _check_output(run)
    shards = expand_pool(run.pool) if run.pool else []
    check_fields(shards, named_fields(run.reading, scorer=run.scorer))
    fitted = fit_scorer(run, shards, execution, f"{run.output}.{STEPS}")
    fitted.origin = origin_of(run)
    storage.save(fitted, run.output)
    return fitted


def _check_output(run: FitRun) -> None:
    """Raise UserError where the fit would replace an input, or a file that is not a fitted scorer."""
    place = run.output
    if is_remote(place) or not local_path(place).exists():
        return
    for one in files_named(run):
        if not is_remote(one) and local_path(one).exists() and local_path(one).samefile(local_path(place)):
            raise UserError(f"{place}: is an input of the fit; choose another file with -o")
    if not storage.is_fitted(place):
        raise UserError(f"{place}: is there, and is not a fitted file of dvsel; choose another file with -o")


def reads_pool(run: FitRun) -> bool:
    """True where the fit reads the pool."""
    return bool(run.scorer and (run.scorer.takes_pool or _steps(run)))


def check_fit(run: FitRun) -> Scorer:
    """The run's scorer; UserError where it lacks a target or a pool, before anything is read or written."""
    scorer, target = run.scorer, run.fitting.target
    assert scorer is not None
    if _steps(run) == "distil":
        from dvsel.commands import distil

        distil.check(run)
    name = name_of(SCORERS, type(scorer))
    if scorer.takes_target and not target:
        raise UserError(f"{name} needs a target; name one with --target FILE")
    if target and not scorer.takes_target:
        raise UserError(f"{name} takes no target; drop --target")
    if scorer.takes_pool and not run.pool:
        raise UserError(f"{name} is fitted on a sample of the pool; name the pool's shards")
    return scorer


def _steps(run: FitRun) -> str:
    """Name of the fit in steps that the run asks for; "" for its scorer's own `fit`."""
    assert run.scorer is not None
    return "distil" if run.fitting.distil else run.scorer.steps


def fit_scorer(run: FitRun, shards: list[Shard], execution: Execution, folder: str) -> Fitted:
    """Fit on a sample of `shards` and on the run's targets. folder: where a fit in steps leaves their files."""
    run = dataclasses.replace(run, scorer=for_vectors(check_fit(run), shards))
    match _steps(run):
        case "distil":
            from dvsel.commands import distil

            return distil.fit(run, shards, execution, folder, fit_scorer)
        case "preselect":
            from dvsel.commands import preselect

            return preselect.fit(run, shards, execution, folder)
        case _:
            return fit_at_once(run, shards, execution)
