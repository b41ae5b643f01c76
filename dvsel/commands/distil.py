"""Distil an expensive scorer, in steps that leave files (see `dvsel.scorers.distilled` for the method).

    teacher.fitted   the expensive scorer, fitted, unless one was given
    sample/          documents of the pool, drawn at random, each text once
    embeddings/      their vectors, where the pool comes with some
    scores/          the teacher's scores of these, which is what costs

Every step is skipped where it was done before, and goes on where it was interrupted. The sample is in the order of
its draws, so that of a larger one the first shards are the same: only what comes to it is scored.

`dvsel.distillation.student` says what is learned of these.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.commands.embed import keep
from dvsel.distillation.student import FEWEST, Learned, StudentInputs, learn
from dvsel.documents.columns import Batch, Column
from dvsel.embeddings import EmbedderOptions
from dvsel.errors import Notice, UserError
from dvsel.interface.registry import SCORERS, name_of
from dvsel.interface.scorer import Fitted
from dvsel.options import to_mapping
from dvsel.pool.annotate import PARTS
from dvsel.pool.new_shards import distinct_rows, json_lines, named_shards, row_ids, shard_name
from dvsel.pool.sample import Sample, pool_sample
from dvsel.pool.scoring import score_into
from dvsel.pool.sources import documents_in, expand_pool
from dvsel.progress import step
from dvsel.runs import fitted_files as storage
from dvsel.runs.inputs import STALE, keep_inputs
from dvsel.runs.output_folder import RECIPE, REPORT, working_in
from dvsel.runs.recipe import dump
from dvsel.runs.requests import Execution, FitRun, Fitting, Reading, ScoreRun, Scoring
from dvsel.score_files.find import SUFFIXES, suffix_in
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers.distilled import Distilled, FittedDistilled
from dvsel.storage.places import Shard, exists, find, join, read_file, remove, write_file

TEACHER, TEACHER_STEPS, SAMPLE, EMBEDDINGS, SCORES = "teacher.fitted", "teacher", "sample", "embeddings", "scores"

DOCUMENTS, FLOOR = 10_000, 0.3

_SHARD = 1 << 20  # bytes of a shard of the sample: scoring resumes a shard at a time
_OTHER_SAMPLE = 1  # added to the seed: what the teacher was fitted on says little of how it scores the rest

Fit = Callable[[FitRun, list[Shard], Execution, str], Fitted]
Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


def check(run: FitRun) -> None:
    """Raise UserError for what cannot be distilled."""
    if run.fitting.distil and isinstance(run.scorer, Distilled):
        raise UserError("distilled: learns from another scorer as it is; drop --distil")
    if not run.pool:
        raise UserError("distilling takes a sample of the pool; name the pool's shards")
    if (documents := _asked(run)) < FEWEST:
        raise UserError(f"--distil-documents {documents}: too few to learn from; give {FEWEST} or more")


def _asked(run: FitRun) -> int:
    asked = run.fitting.distil_documents
    return DOCUMENTS if asked is None else asked


def _floor(run: FitRun) -> float:
    asked = run.fitting.distil_floor
    return FLOOR if asked is None else asked


def fit(run: FitRun, shards: list[Shard], execution: Execution, folder: str, fit_teacher: Fit) -> Fitted:
    """Distil the run's scorer, or the teacher that it names, with the steps' files in `folder`.

    fit_teacher: fits a teacher that is not fitted, with the same arguments.
    """
    execution = execution.of_a_step  # what is there are finished steps of this fit
    with working_in(folder, dump("fit", _what_costs(run)), overwrite=False):
        keep_inputs(run, shards, folder, STALE)
        place = _teacher(run, shards, execution, folder, fit_teacher)
        teacher, fingerprint = storage.load(place)
        name = _check_teacher(teacher, place)
        _draw(run, shards, teacher.scorer.needs, execution, folder)
        _score(run, place, execution, folder)
        documents, scores = documents_of(run.reading, folder), scores_of(folder)
        student = _student(run)
        features = StudentInputs.of(documents, student.spec, student)
        columns = zip(scores.T.astype(np.float64), teacher.groups, strict=True)
        learned = [learn(features, column, f"{name}{_of(group)}") for column, group in columns]
        _check_floor(run, learned, name)
        made = _build(student, teacher, features, learned)
        made.report = _report(teacher, fingerprint, documents.text, scores, features, learned)
        return made


def _what_costs(run: FitRun) -> FitRun:
    """The run with only those options that the teacher and the order of the sample depend on."""
    scorer = Distilled(teacher=run.scorer.teacher) if isinstance(run.scorer, Distilled) else run.scorer
    fitting = dataclasses.replace(run.fitting, distil_documents=None, distil_floor=None)
    return dataclasses.replace(run, scorer=scorer, output="", fitting=fitting)


def _student(run: FitRun) -> Distilled:
    return run.scorer if isinstance(run.scorer, Distilled) else Distilled(teacher=TEACHER)


# --- The teacher. ---


def _teacher(run: FitRun, shards: list[Shard], execution: Execution, folder: str, fit_teacher: Fit) -> str:
    """The fitted teacher's file: the one that was named, the one that an earlier start left, or a new one."""
    if isinstance(run.scorer, Distilled):
        return run.scorer.teacher
    place = join(folder, TEACHER)
    if not exists(place):
        plain = dataclasses.replace(run, fitting=Fitting(target=run.fitting.target))
        storage.save(fit_teacher(plain, shards, execution, join(folder, TEACHER_STEPS)), place)
    return place


def _check_teacher(teacher: Fitted, place: str) -> str:
    """The teacher's name. UserError for one that is distilled, a notice for one that is cheap."""
    name = name_of(SCORERS, type(teacher.scorer))
    if teacher.teacher_name:
        raise UserError(f"{place}: is distilled itself; give {teacher.teacher_name} fitted without --distil")
    if not teacher.scorer.uses_all_cores:
        warnings.warn(
            Notice(
                f"{name}: distilling is for scorers that run a model; this one needs neither all cores nor a GPU, and "
                "scoring with it itself may cost as little, and is exact"
            ),
            stacklevel=3,
        )
    return name


# --- The sample and its scores. ---


def _draw(run: FitRun, shards: list[Shard], needs: tuple[str, ...], execution: Execution, folder: str) -> None:
    """Write the sample as shards; its report, written last, says that it is whole."""
    place, asked = join(folder, SAMPLE), _asked(run)
    mark = join(place, REPORT)
    if exists(mark) and json.loads(read_file(mark))["asked"] == asked:
        return
    remove(mark)
    paths = (run.reading.domain_field, *needs, *run.reading.text_fields)
    sampling = dataclasses.replace(run.sampling, seed=run.sampling.seed + _OTHER_SAMPLE)
    sample = pool_sample(shards, run.reading, sampling, paths, execution)
    rows = distinct_rows(sample.text)[:asked]
    _check_enough(len(rows), asked)
    count = 0
    for name, content in named_shards(_lines(sample, rows, run.reading), _SHARD):
        _write_shard(folder, name, content)
        count += 1
    while exists(join(place, shard_name(count))):
        _drop_shard(folder, shard_name(count))
        count += 1
    if sample.vectors is not None:
        keep(sample.vectors, join(folder, SAMPLE), run.reading, join(folder, EMBEDDINGS))
    write_file(mark, json.dumps({"asked": asked, "documents": len(rows)}).encode())


def _check_enough(found: int, asked: int) -> None:
    remedy = "give a larger --sample-size, if the pool has more"
    if found < FEWEST:
        raise UserError(f"the sample holds {found:,} documents, and distilling takes {FEWEST} or more; {remedy}")
    if found < asked:
        warnings.warn(
            Notice(f"the sample holds {found:,} documents, of {asked:,} that were to be scored; {remedy}"), stacklevel=3
        )


def _lines(sample: Sample, rows: Numbers, reading: Reading) -> Iterator[bytes]:
    """The documents, with the row for an id."""
    joined = {reading.text_field} - set(reading.text_fields)
    fields = {path: column for path, column in sample.columns.items() if path not in joined}
    return json_lines({**fields, reading.id_field: row_ids(len(sample.text))}, rows)


def _write_shard(folder: str, name: str, content: bytes) -> None:
    """Write a shard of the sample, unless it is there; the scores of another one are dropped first."""
    place = join(folder, f"{SAMPLE}/{name}")
    if not (exists(place) and read_file(place) == content):
        _drop_shard(folder, name)
        write_file(place, content)


def _drop_shard(folder: str, name: str) -> None:
    """Remove a shard of the sample with all that was made of it, also in part."""
    rows = suffix_in(folder)
    for place in (f"{SCORES}/{PARTS}", f"{SCORES}/{name}{rows}", f"{EMBEDDINGS}/{name}{rows}", f"{SAMPLE}/{name}"):
        remove(join(folder, place))


def _score(run: FitRun, teacher: str, execution: Execution, folder: str) -> None:
    # Nobody asks for the domains of these scores, and a sample may lack a field that is rare in the pool.
    reading = dataclasses.replace(run.reading, domain_field=Reading().domain_field)
    scoring, pool = Scoring(fitted=teacher), (_pool(folder),)
    scores = ScoreRun(scoring=scoring, pool=pool, output=join(folder, SCORES), reading=reading)
    with step("teacher"):
        score_into(scores, expand_pool(pool), execution, lambda: teacher)


def _pool(folder: str) -> str:
    """The sample as a pool: with its vectors, if it has some."""
    embedded = join(folder, EMBEDDINGS)
    return embedded if exists(join(embedded, RECIPE)) else join(folder, SAMPLE)


def documents_of(reading: Reading, folder: str) -> Batch:
    """The sample in the folder of a fit's steps, in its order, with its vectors if it has some."""
    return Batch.join(list(documents_in([_pool(folder)], reading)))


def scores_of(folder: str) -> npt.NDArray[np.float32]:
    """The teacher's scores of that sample, float32 (n, groups), NaN for none."""
    files = [ScoreFile(url) for url in find(join(folder, SCORES), SUFFIXES)]
    return np.concatenate([rows.score for file in files for rows in file.rows(())])


# --- The cheap scorer. ---


def _check_floor(run: FitRun, learned: Sequence[Learned], name: str) -> None:
    worst = min(learned, key=lambda one: one.spearman)
    floor = _floor(run)
    if floor and worst.spearman < floor:
        raise UserError(
            f"{name}: what was distilled ranks {worst.held_out:,} documents held out with a correlation of "
            f"{worst.spearman:.3f} (Spearman) with it, under the floor of {floor:g}; let it score more documents "
            f"(--distil-documents, now {_asked(run):,}), or accept less (--distil-floor)"
        )


def _build(student: Distilled, teacher: Fitted, features: StudentInputs, learned: Sequence[Learned]) -> Fitted:
    """The cheap scorer, without its report."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "intercepts": np.array([one.intercept for one in learned]),
    }
    if any(one.ngrams is not None for one in learned):
        arrays["weights"] = _stacked([one.ngrams for one in learned]).astype(np.float32)
    if any(one.vectors is not None for one in learned):
        arrays["vectors"] = _stacked([one.vectors for one in learned])
        student = features.source.options(student)
    else:
        student = dataclasses.replace(student, **to_mapping(EmbedderOptions()))
    student = dataclasses.replace(student, teacher=storage.title_of(teacher))
    return FittedDistilled(student, arrays, groups=teacher.groups, shares=teacher.shares)


def _stacked(rows: Sequence[Floats | None]) -> Floats:
    """(groups, width), with zeros for None."""
    width = max(len(row) for row in rows if row is not None)
    return np.stack([np.zeros(width) if row is None else row for row in rows])


def _report(
    teacher: Fitted,
    fingerprint: str,
    texts: Column,
    scores: npt.NDArray[np.float32],
    features: StudentInputs,
    learned: Sequence[Learned],
) -> dict[str, Any]:
    scored = np.isfinite(scores).any(axis=1)
    numbers = ("embeddings", "penalty", "trained", "held_out", "spearman", "top_tenth")
    embedder = {"embedder": dataclasses.asdict(features.maker)} if features.maker else {}
    return {
        "teacher": {
            "scorer": name_of(SCORERS, type(teacher.scorer)),
            "options": to_mapping(teacher.scorer),
            "selector": teacher.selector,
            "fingerprint": fingerprint,
            "documents": int(scored.sum()),
            "bytes": int(texts.sizes[scored].sum()),
            "unscored": int((~scored).sum()),
        },
        "groups": [
            {"name": group, **{name: getattr(one, name) for name in numbers}}
            for group, one in zip(teacher.groups, learned, strict=True)
        ],
    } | embedder


def _of(group: str) -> str:
    return f", group {group}" if group else ""
