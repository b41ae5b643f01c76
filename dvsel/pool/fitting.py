"""Fit a scorer on a sample of the pool and on its targets; keep the file in the folder of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from dvsel.documents.columns import Batch
from dvsel.errors import UserError
from dvsel.interface import checked
from dvsel.interface.registry import SCORERS, name_of
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.language import models
from dvsel.options import fields_of, flat
from dvsel.pool.read import TARGET_FLAG
from dvsel.pool.sample import pool_sample
from dvsel.pool.sources import documents_in, expand_pool
from dvsel.progress import tell
from dvsel.runs import fitted_files as storage
from dvsel.runs.inputs import check_inputs, note_inputs
from dvsel.runs.requests import Execution, FitRun
from dvsel.score_files.reader import ScoreFile
from dvsel.storage.manifest import record
from dvsel.storage.places import Shard, exists, join


def fit_at_once(run: FitRun, shards: Sequence[Shard], execution: Execution) -> Fitted:
    """Fit the run's scorer by its own `fit`, on a sample of `shards` and on the run's targets."""
    scorer = run.scorer
    assert scorer is not None
    pool: Iterable[Batch] = ()
    if scorer.takes_pool:
        pool = pool_sample(shards, run.reading, run.sampling, scorer.needs, execution).batches()
    tell(f"fitting {name_of(SCORERS, type(scorer))}")
    return checked.fit(scorer, pool, _targets(run, scorer) | _documents(run, scorer))


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
    fitted.origin = origin_of(run)
    storage.save(fitted, place)
    models.release()
    return place


def origin_of(run: Any) -> dict[str, list[str]]:
    """The names of what the run was told to read, by option."""
    named = flat(run)
    return {name: list(named[name]) for name in ("target", "query", "pool") if named.get(name)}


def for_vectors(scorer: Scorer, shards: Sequence[Shard]) -> Scorer:
    """The scorer for the pool's vectors, where it comes with some."""
    if not (shards and shards[0].vectors):
        return scorer
    embedding = ScoreFile(shards[0].vectors).header.embedding
    assert embedding is not None
    return scorer.for_vectors_of(embedding.maker)


def _targets(run: FitRun, scorer: Scorer) -> dict[str, Iterable[Batch]]:
    patterns = list(run.fitting.target)
    if scorer.splits_targets:
        patterns = [shard.vectors or shard.url for shard in expand_pool(patterns)]
    names = [PurePosixPath(pattern).name for pattern in patterns]
    if len(set(names)) < len(names):
        names = patterns
    if len(set(names)) < len(names):
        raise UserError("a target is named twice; name each once")
    reading, flag = run.targeting.reading(run.reading), TARGET_FLAG
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
    return {name: documents_in(patterns, run.reading, scorer.needs) for name, patterns in named.items() if patterns}
