"""Row files without scores: what a rule needs that goes by chance and by budgets alone.

Every document with text has the score 0, so that `random` picks what it would pick among scores of that pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dvsel import __version__
from dvsel.documents.columns import Status
from dvsel.documents.tokens import TokenCounter
from dvsel.errors import UserError
from dvsel.options import among, changed
from dvsel.pool.annotate import Tokens, rows_of, token_counter, write_beside
from dvsel.pool.fields import check_fields, named_fields
from dvsel.pool.read import PoolBatch
from dvsel.pool.sources import expand_pool
from dvsel.runs.output_folder import working_in
from dvsel.runs.recipe import dump
from dvsel.runs.requests import Execution, Reading, ScoreRun, SelectRun
from dvsel.score_files.find import holds_rows
from dvsel.score_files.header import Header, ReadingRecord
from dvsel.score_files.rows import Rows
from dvsel.storage.places import Shard

_OF_A_SCORER = ("target", "distil", "distil_documents", "distil_floor", "adaptive", "embeddings")
NO_SCORES = "no scores"
"""What takes the place of the scorer's name."""


@dataclass(frozen=True, slots=True)
class _Counts:
    """Annotates documents with nothing but what all row files hold."""

    reading: Reading
    counter: TokenCounter
    paths: tuple[str, ...] = ()
    is_slow: bool = False

    def annotate(self, batch: PoolBatch, tokens: Tokens) -> Rows:
        """The rows of a batch."""
        scores = np.where(batch.status == Status.SCORED, np.float32(0), np.float32(np.nan))[:, None]
        return rows_of(batch, tokens, scores, batch.status, self.reading)


def check_scored_pool(run: SelectRun) -> None:
    """Raise UserError where a rule that needs scores is given shards that have none."""
    if run.scorer or run.scoring.fitted or not run.pool or any(map(holds_rows, run.pool)):
        return
    try:
        expand_pool(run.pool)
    except UserError:
        return  # no pool either: who looks for scores says so
    raise UserError(
        f"{run.pool[0]}: has no scores; name a scorer (--with dsir --target FILE, --with perplexity --model MODEL, or "
        "another of `dvsel list`), or choose --method random"
    )


def check_counting(run: SelectRun) -> list[Shard]:
    """The pool's shards. Raises UserError for options that only a scorer reads, and for fields that are not there."""
    given = changed(run)
    for name in _OF_A_SCORER:
        if name in given:
            raise UserError(
                f"--{name.replace('_', '-')}: is for scoring, and no scorer is named; add --with, or drop it"
            )
    shards = expand_pool(run.pool)
    check_fields(shards, named_fields(run.reading, run.counting.tokens_field))
    return shards


def count(run: ScoreRun, shards: Sequence[Shard], execution: Execution) -> None:
    """Write the row files into `run.output`, where finished ones of the same run are kept."""
    with working_in(run.output, dump("score", run), execution.overwrite):
        reading = run.reading
        counter = token_counter(run.counting, reading, run.sampling, shards, execution)
        header = Header(
            version=__version__,
            scorer=NO_SCORES,
            fingerprint="",
            groups=("",),
            shares=(1.0,),
            selector="random",
            unscored="",
            reading=among(ReadingRecord, reading),
            tokens=counter,
        )
        workers = execution.processes(sum(shard.size for shard in shards))
        write_beside(shards, _Counts(reading, counter), header, run.output, workers, "counting")
