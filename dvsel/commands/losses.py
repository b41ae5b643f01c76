"""Losses of a ladder's models: bits per character of every document under every model.

Each model is one ordinary score run of the scorer `perplexity` into a folder of its own, so all that holds for score
files holds here: the score is minus the loss, finished shards are kept, and a model that is added to the ladder
leaves the others as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dvsel.documents.columns import Status
from dvsel.errors import UserError
from dvsel.interface.registry import SCORERS, name_of
from dvsel.language import ModelOptions
from dvsel.options import Options, files_named, option, part, to_mapping
from dvsel.pool.dry_run import Forecast, forecast
from dvsel.pool.fields import check_fields, named_fields
from dvsel.pool.fitting import fit_at_once, kept_fit
from dvsel.pool.scoring import score_into
from dvsel.progress import step, stopped_in
from dvsel.runs.fitted_files import default_name
from dvsel.runs.ladder import Ladder, Rung
from dvsel.runs.output_folder import REPORT, working_in
from dvsel.runs.recipe import dump
from dvsel.runs.report import left_out, unread_of, write_json
from dvsel.runs.requests import Execution, Reading, ScoreRun
from dvsel.score_files.find import SUFFIXES
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers.perplexity import Perplexity
from dvsel.shards.expand import expand
from dvsel.storage.manifest import record
from dvsel.storage.places import Shard, find, join

MEASURE = "bits-per-char"


@dataclass(frozen=True, kw_only=True)
class LossesRun(Options):
    """Compute the losses of a pool under each model of a ladder."""

    modelling: ModelOptions = part(ModelOptions)
    reading: Reading = part(Reading)
    pool: tuple[str, ...] = option((), "shards, folders, globs or URLs", files=True)
    ladder: str = option("", "YAML file of models and their benchmark scores", files=True)
    output: str = option("", "folder to write a folder of score files for each model to")


@dataclass(frozen=True)
class ModelLosses:
    """One model over the pool. bits_per_char: mean over documents, each weighted by its bytes."""

    name: str
    model: str
    score: float
    bits_per_char: float
    documents: int
    unscored: int


@dataclass(frozen=True)
class LossesReport:
    """Report of `dvsel losses`, weakest model first. ordered: of `pairs`, those that mean losses order as scores do."""

    models: list[ModelLosses]
    ordered: int
    pairs: int
    unread: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, ladder: Ladder, models: Sequence[ModelLosses]) -> LossesReport:
        """The report on the models of a ladder, in its order."""
        ordered = sum(models[weak].bits_per_char > models[strong].bits_per_char for weak, strong in ladder.pairs)
        return cls(list(models), ordered, len(ladder.pairs))

    def lines(self) -> list[str]:
        """The summary."""
        width = max(len("model"), *(len(one.name) for one in self.models))
        rows = [f"{'model':{width}}  {'score':>8}  {'bits/char':>9}  {'documents':>12}  {'no loss':>9}"]
        rows += [
            f"{one.name:{width}}  {one.score:8.4g}  {one.bits_per_char:9.4f}  {one.documents:12,}  {one.unscored:9,}"
            for one in self.models
        ]
        return [
            *rows,
            "bits/char: mean over documents, weighted by their bytes",
            f"the mean losses put {self.ordered} of {self.pairs} pairs of models in the order of their scores",
            *left_out(self.unread),
        ]


def losses(run: LossesRun, execution: Execution) -> LossesReport | Forecast:
    """Compute the losses into `run.output`, where finished shards of finished models are kept."""
    if not run.ladder:
        raise UserError("no ladder; name the file of models and their scores with --ladder ladder.yaml")
    ladder = Ladder.read(run.ladder)
    shards = expand(run.pool)
    check_fields(shards, named_fields(run.reading))
    if execution.dry_run:
        return forecast(shards, run.reading, dump("losses", run))
    with working_in(run.output, dump("losses", run), execution.overwrite, files_named(run)):
        record(run.output, [f"{rung.name}/" for rung in ladder.rungs])
        models = [_model_losses(rung, run, shards, execution, number) for number, rung in enumerate(ladder.rungs, 1)]
        report = LossesReport.of(ladder, models)
        files = [ScoreFile(url) for url in find(join(run.output, ladder.rungs[0].name), SUFFIXES)]
        report = dataclasses.replace(report, unread=unread_of(files))
        write_json(report, join(run.output, REPORT))
    return report


def _model_losses(rung: Rung, run: LossesRun, shards: list[Shard], execution: Execution, number: int) -> ModelLosses:
    folder, execution = join(run.output, rung.name), execution.of_a_step
    scores = _score_run(rung, run, folder)
    with step(rung.name), stopped_in(f"model {number}, {rung.name}"):
        done = score_into(scores, shards, execution, lambda: _fitted_file(scores, shards, execution))
    if not done.totals.docs:
        raise UserError(f"{rung.name} gives no document of the pool a loss; check the files and --text-field")
    unscored = done.totals.status.get("unscored", 0)
    return ModelLosses(rung.name, rung.model, rung.score, _mean_loss(folder), done.totals.docs, unscored)


def _mean_loss(folder: str) -> float:
    """The losses in a folder of score files, weighted by bytes."""
    bits = total = 0.0
    for url in find(folder, SUFFIXES):
        for rows in ScoreFile(url).rows(("bytes", "status")):
            scored = rows.status == Status.SCORED
            sizes = rows.bytes[scored].astype(np.float64)
            bits -= float(rows.score[scored, 0].astype(np.float64) @ sizes)
            total += float(sizes.sum())
    return bits / total


def _score_run(rung: Rung, run: LossesRun, folder: str) -> ScoreRun:
    scorer = Perplexity(model=rung.model, measure=MEASURE, **to_mapping(run.modelling))
    return ScoreRun(scorer=scorer, pool=run.pool, output=folder, reading=run.reading)


def _fitted_file(run: ScoreRun, shards: list[Shard], execution: Execution) -> str:
    name = default_name(name_of(SCORERS, Perplexity))
    return kept_fit(run, [], run.output, name, lambda: fit_at_once(run.fit_run, shards, execution))
