"""Fit a scorer: a sample of the pool and the targets in, a small file out."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from dvsel.budget import Budget
from dvsel.documents.columns import Batch
from dvsel.errors import UserError
from dvsel.interface import checked
from dvsel.interface.registry import SCORERS, name_of
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.language import models
from dvsel.options import fields_of, files_named, refuse_unread
from dvsel.pool.fields import check_fields, named_fields
from dvsel.pool.read import TARGET_FLAG
from dvsel.pool.sample import Sample, draw_sample
from dvsel.pool.sources import documents_in, expand_pool
from dvsel.progress import show, showing
from dvsel.runs import fitted_files as storage
from dvsel.runs.inputs import check_inputs, note_inputs
from dvsel.runs.output_folder import STEPS
from dvsel.runs.requests import Execution, FitRun, reading_of_targets
from dvsel.score_files.score_file import ScoreFile
from dvsel.storage.manifest import record
from dvsel.storage.places import Shard, exists, is_remote, join, local_path

_DISTIL = "dvsel.commands.distil:fit"


def fit(run: FitRun, execution: Execution) -> Fitted:
    """Fit `run.scorer` and write it to `run.output`."""
    refuse_unread(run)
    check_fit(run)
    _check_output(run)
    shards = expand_pool(run.pool) if run.pool else []
    check_fields(shards, named_fields(run, scorer=run.scorer))
    fitted = fit_scorer(run, shards, execution, f"{run.output}.{STEPS}")
    fitted.origin = _origin(run)
    storage.save(fitted, run.output)
    return fitted


def _check_output(run: FitRun) -> None:
    """Raise UserError where the fit would replace an input, or a file that is no fitted scorer."""
    place = run.output
    if is_remote(place) or not local_path(place).exists():
        return
    for one in files_named(run):
        if not is_remote(one) and local_path(one).exists() and local_path(one).samefile(local_path(place)):
            raise UserError(f"{place}: is an input of the fit; choose another file with -o")
    if not storage.is_fitted(place):
        raise UserError(f"{place}: is there, and is no fitted scorer of dvsel; choose another file with -o")


def kept_fit(run: Any, pool: Sequence[Shard], folder: str, name: str, make: Callable[[], Fitted]) -> str:
    """The place of a run's fitted scorer in its folder: of what an earlier start left, if its inputs are the same.

    pool: the shards that the fit samples, if it does. Raises UserError where the inputs changed.
    """
    place = join(folder, name)
    if exists(place):
        check_inputs(run, pool, folder, "pass --overwrite to begin again, or choose another -o")
        return place
    note_inputs(run, pool, folder)
    record(folder, [name])
    fitted = make()
    fitted.origin = _origin(run)
    storage.save(fitted, place)
    models.release()
    return place


def _origin(run: Any) -> dict[str, list[str]]:
    """What the run was told to read."""
    named = {name: getattr(run, name, ()) for name in ("target", "query", "pool")}
    return {name: list(patterns) for name, patterns in named.items() if patterns}


def reads_pool(run: FitRun) -> bool:
    """Whether the fit reads the pool."""
    return bool(run.scorer and (run.scorer.takes_pool or _steps(run)))


def check_fit(run: FitRun) -> Scorer:
    """The run's scorer; UserError where it lacks a target or a pool, before anything is read or written."""
    scorer = run.scorer
    assert scorer is not None
    _check_distil(run)
    name = name_of(SCORERS, type(scorer))
    if scorer.takes_target and not run.target:
        raise UserError(f"{name} needs a target; name one with --target FILE")
    if run.target and not scorer.takes_target:
        raise UserError(f"{name} takes no target; drop --target")
    if scorer.takes_pool and not run.pool:
        raise UserError(f"{name} is fitted on a sample of the pool; name the pool's shards")
    return scorer


def _check_distil(run: FitRun) -> None:
    if _steps(run) == _DISTIL:
        from dvsel.commands import distil  # which needs this module

        distil.check(run)


def _steps(run: FitRun) -> str:
    """What fits the run's scorer in steps, `module:function`; "" for its own `fit`."""
    assert run.scorer is not None
    return _DISTIL if run.distil else run.scorer.steps


def fit_scorer(run: FitRun, shards: list[Shard], execution: Execution, folder: str) -> Fitted:
    """Fit on a sample of `shards` and on the run's targets. folder: where a fit in steps leaves their files."""
    scorer = _for_vectors(check_fit(run), shards)
    run = dataclasses.replace(run, scorer=scorer)
    if steps := _steps(run):
        module, function = steps.split(":")
        in_steps: Callable[..., Fitted] = getattr(importlib.import_module(module), function)
        return in_steps(run, shards, execution, folder)
    pool: Iterable[Batch] = ()
    if scorer.takes_pool:
        pool = pool_sample(run, shards, scorer.needs, execution).batches()
    with showing(execution.progress):
        show(f"fitting {name_of(SCORERS, type(scorer))}", 0, 0)
        return checked.fit(scorer, pool, _targets(run, scorer) | _documents(run, scorer))


def _for_vectors(scorer: Scorer, shards: Sequence[Shard]) -> Scorer:
    """The scorer for the pool's vectors, where it comes with some."""
    if not (shards and shards[0].vectors):
        return scorer
    embedding = ScoreFile(shards[0].vectors).header.embedding
    assert embedding is not None
    return scorer.for_vectors_of(embedding.maker)


def pool_sample(run: FitRun, shards: list[Shard], needs: tuple[str, ...], execution: Execution) -> Sample:
    """The sample of `shards` that the run asks for, with these further fields."""
    size = Budget.parse(run.sample_size, "--sample-size")
    if size.unit != "bytes" or size.amount is None:
        raise UserError(f"--sample-size is {run.sample_size}; give a size in bytes, such as 100MB")
    total = sum(shard.size for shard in shards)
    return draw_sample(
        shards,
        run,
        run,
        size.amount,
        needs,
        execution.processes(total),
        lambda done: execution.progress("sampling the pool", done, total),
    )


def _targets(run: FitRun, scorer: Scorer) -> dict[str, Iterable[Batch]]:
    patterns = list(run.target)
    if scorer.splits_targets:
        patterns = [shard.vectors or shard.url for shard in expand_pool(run.target)]
    names = [PurePosixPath(pattern).name for pattern in patterns]
    if len(set(names)) < len(names):
        names = patterns
    if len(set(names)) < len(names):
        raise UserError("a target is named twice; name each once")
    reading, flag = reading_of_targets(run), TARGET_FLAG
    return {
        name: documents_in([pattern], reading, scorer.needs, flag)
        for name, pattern in zip(names, patterns, strict=True)
    }


def _documents(run: FitRun, scorer: Scorer) -> dict[str, Iterable[Batch]]:
    """The documents of each of the scorer's options that names some."""
    named = {
        name: getattr(scorer, name)
        for name, (field, _) in fields_of(type(scorer)).items()
        if field.metadata.get("documents")
    }
    return {name: documents_in(patterns, run, scorer.needs) for name, patterns in named.items() if patterns}
