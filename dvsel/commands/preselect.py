"""PreSelect's fit, in steps that leave files (see `dvsel.scorers.preselect` for the method).

    sample/      a sample of the pool, each text once
    losses/      bits per character under each model of the ladder, a folder of score files each
    strength/    score files of the predictive strength
    positive/    documents of full strength, or the share asked for
    negative/    as many of the lowest strength, or the share asked for

Every step is skipped where it was done before, and goes on where it was interrupted. The folder belongs to one sample
and one way of computing losses, which are what costs; strengths and labels are made again where the ladder's scores,
the rule or the shares changed.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.budget import Budget
from dvsel.commands.losses import LossesReport, LossesRun, losses
from dvsel.commands.strength import StrengthRun, fingerprint_of, strength
from dvsel.documents.columns import Batch, Column, Kind
from dvsel.documents.hashing import hash_rows, uniform
from dvsel.errors import Notice, UserError
from dvsel.fasttext.classifier import classify
from dvsel.fasttext.examples import LABELS
from dvsel.fasttext.text import prepare
from dvsel.fasttext.training import HELD_OUT_SEED, learn
from dvsel.interface.scorer import Fitted
from dvsel.interface.selector import Selector
from dvsel.language import ModelOptions
from dvsel.linalg.ranks import spearman
from dvsel.options import among, to_mapping
from dvsel.pool.new_shards import distinct_rows, json_lines, named_shards, row_ids
from dvsel.pool.sample import Sample, pool_sample
from dvsel.pool.sources import documents_in
from dvsel.runs.inputs import STALE, keep_inputs
from dvsel.runs.ladder import Ladder
from dvsel.runs.output_folder import RECIPE, REPORT, working_in
from dvsel.runs.recipe import dump
from dvsel.runs.requests import Execution, FitRun, Reading, SelectRun
from dvsel.score_files.find import SUFFIXES
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers.preselect import FittedPreSelect, PreSelect
from dvsel.selection.from_scores import select_from_scores
from dvsel.selectors.threshold import Threshold
from dvsel.selectors.topk import TopK
from dvsel.storage.places import Shard, exists, find, join, read_file, remove, write_file

SAMPLE, LOSSES, STRENGTH, POSITIVE, NEGATIVE = "sample", "losses", "strength", "positive", "negative"

_SHARD = 4 << 20  # bytes of a shard of the sample: losses resume a shard at a time
_FEWEST = 20  # documents that a class can be learned from
_TOP = 10  # the best tenth by the classifier is looked at

Floats = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.uint64]


def fit(run: FitRun, shards: list[Shard], execution: Execution, folder: str) -> Fitted:
    """Fit `run.scorer`, a PreSelect, on a sample of `shards`, with the steps' files in `folder`."""
    scorer = run.scorer
    assert isinstance(scorer, PreSelect)
    ladder = Ladder.read(scorer.ladder)
    execution = execution.of_a_step  # what is there are finished steps of this fit
    with working_in(folder, dump("fit", _what_costs(run, scorer)), overwrite=False):
        keep_inputs(FitRun(), shards, folder, STALE)  # the models' scores may change, and losses stay
        _draw(run, shards, execution, join(folder, SAMPLE))
        measured = _losses(scorer, folder, execution)
        found = _strength(scorer, ladder, folder, execution)
        labelled = _label(scorer, found, folder, execution)
        return _learn(scorer, folder, _origin(measured, found, labelled))


def _what_costs(run: FitRun, scorer: PreSelect) -> FitRun:
    """The run with only those options that the sample and the losses depend on."""
    kept = PreSelect(ladder=scorer.ladder, **to_mapping(among(ModelOptions, scorer)))
    return FitRun(scorer=kept, pool=run.pool, reading=run.reading, sampling=run.sampling)


# --- The sample. ---


def _draw(run: FitRun, shards: list[Shard], execution: Execution, place: str) -> None:
    """Write the sample as shards; its report, written last, says that it is whole."""
    if exists(join(place, REPORT)):
        return
    domain_field = run.reading.domain_field
    sample = pool_sample(shards, run.reading, run.sampling, (domain_field,), execution)
    rows = distinct_rows(sample.text)
    for name, content in named_shards(json_lines(_fields(sample, domain_field), rows), _SHARD):
        write_file(join(place, name), content)
    report = {"documents": len(rows), "copies_left_out": len(sample.text) - len(rows)}
    write_file(join(place, REPORT), json.dumps(report).encode())


def _fields(sample: Sample, domain_field: str) -> dict[str, Column]:
    """The sample's fields under the names that the steps read; a domain that is not a string is none."""
    domain = sample.columns[domain_field]
    strings = np.where(domain.kind == Kind.STRING, domain.kind, Kind.MISSING).astype(domain.kind.dtype)
    return {
        "id": row_ids(len(sample.text)),
        "text": sample.text,
        "domain": dataclasses.replace(domain, kind=strings),
    }


# --- Losses and strength. ---


def _losses(scorer: PreSelect, folder: str, execution: Execution) -> LossesReport:
    modelling, place = among(ModelOptions, scorer), join(folder, LOSSES)
    run = LossesRun(pool=(join(folder, SAMPLE),), ladder=scorer.ladder, output=place, modelling=modelling)
    report = losses(run, execution)
    assert isinstance(report, LossesReport)
    return report


def _strength(scorer: PreSelect, ladder: Ladder, folder: str, execution: Execution) -> dict[str, Any]:
    """The report on the strengths. What came of other ones is removed first, so that a kill leaves nothing mixed."""
    place = join(folder, STRENGTH)
    wanted = fingerprint_of(join(folder, LOSSES), ladder, scorer.strength)
    there = _read(join(place, REPORT)) if exists(join(place, REPORT)) else {}
    if there.get("fingerprint") == wanted:
        return there
    for step in (POSITIVE, NEGATIVE, STRENGTH):
        remove(join(folder, step))
    run = StrengthRun(pool=(join(folder, LOSSES),), ladder=scorer.ladder, strength=scorer.strength, output=place)
    return dataclasses.asdict(strength(run, execution))


def _read(url: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read_file(url))
    return found


# --- Positives and negatives. ---


def _label(scorer: PreSelect, found: Mapping[str, Any], folder: str, execution: Execution) -> tuple[int, int]:
    """Write positives and negatives; returns how many there are."""
    documents = found["totals"]["docs"]
    if scorer.share_of_positives:
        positive = _take(POSITIVE, TopK(), int(scorer.share_of_positives * documents), folder, execution)
    else:
        positive = _take(POSITIVE, Threshold(min_score=1.0), None, folder, execution)
    _check_enough(positive, documents, "have all pairs of models in order", "--positive-share 10%")
    wanted = int(scorer.share_of_negatives * documents) if scorer.share_of_negatives else positive
    negative = min(wanted, documents - positive)
    _check_enough(negative, documents, "are left for negatives", "a smaller --positive-share")
    if negative < wanted:
        text = f"only {negative:,} of the sample's documents are left for negatives, beside {positive:,} positives"
        warnings.warn(Notice(f"{folder}: {text}"), stacklevel=2)
    _check_apart(_strengths(folder)[0], positive, negative)
    return positive, _take(NEGATIVE, TopK(lowest=True), negative, folder, execution)


def _take(step: str, selector: Selector, documents: int | None, folder: str, execution: Execution) -> int:
    """Select from the strengths, again where the step holds another selection; returns how many documents."""
    budget = None if documents is None else str(Budget("docs", amount=max(documents, 1)))
    run = SelectRun(pool=(join(folder, STRENGTH),), selector=selector, budget=budget, output=join(folder, step))
    report = select_from_scores(run, dataclasses.replace(execution, overwrite=_holds_another(run)))
    return report.given["docs"]


def _holds_another(run: SelectRun) -> bool:
    place = join(run.output, RECIPE)
    if not exists(place):
        return False
    return read_file(place).decode() != dump("select", run)


def _check_enough(count: int, documents: int, what: str, remedy: str) -> None:
    if count < _FEWEST:
        raise UserError(
            f"preselect: {count:,} of the sample's {documents:,} documents {what}, and a classifier takes {_FEWEST} "
            f"or more; give a larger --sample-size, or {remedy}"
        )


def _check_apart(strengths: Floats, positive: int, negative: int) -> None:
    """Positives and negatives of equal strength would teach nothing, and could be the same documents."""
    ordered = np.sort(strengths[np.isfinite(strengths)])
    weakest, strongest = ordered[-positive], ordered[negative - 1]
    if weakest <= strongest:
        raise UserError(
            f"preselect: the positives begin at strength {weakest:.3g} and the negatives end at {strongest:.3g}; give "
            "smaller shares, or a ladder of more models"
        )


def _strengths(folder: str) -> tuple[Floats, Hashes]:
    """Strength, NaN for none, and hash of the text of each document of the sample, in the order of its shards."""
    files = [ScoreFile(url) for url in find(join(folder, STRENGTH), SUFFIXES)]
    rows = [rows for file in files for rows in file.rows(("text_hash",))]
    return np.concatenate([part.score[:, 0] for part in rows]), np.concatenate([part.text_hash for part in rows])


# --- The classifier. ---


def _learn(scorer: PreSelect, folder: str, report: Mapping[str, Any]) -> Fitted:
    positive, negative = join(folder, POSITIVE), join(folder, NEGATIVE)
    model, learned = learn(_batches(positive), _batches(negative), scorer, scorer.preprocess)
    ranker = made = classify(scorer, model, LABELS[0], scorer.preprocess)
    if scorer.probability:  # which saturates, and so ranks worse
        made = classify(scorer, model, LABELS[0], scorer.preprocess, probability=True)
    fitted = FittedPreSelect(scorer, made.arrays)
    fitted.report = {**learned, **report, "ranking": _ranking(ranker, scorer, folder)}
    return fitted


def _batches(place: str) -> Iterator[Batch]:
    """The documents of a step's folder, the shards in the order of their names."""
    return documents_in([place], Reading())


def _ranking(classifier: Fitted, scorer: PreSelect, folder: str) -> dict[str, Any]:
    """Agreement of the classifier's ranking with the strength's, over documents that it was not trained on.

    held_out: the share of the whole sample that training leaves out, by the hash of a text, so it is as the pool is.
    unlabelled: all documents that are neither positive nor negative, which are harder to tell apart.
    """
    strengths, text_hash = _strengths(folder)
    logits, held_out = _read_sample(classifier, scorer, join(folder, SAMPLE))
    usable = np.isfinite(strengths) & np.isfinite(logits)
    both = itertools.chain(*(_batches(join(folder, step)) for step in (POSITIVE, NEGATIVE)))
    labelled = np.concatenate([hash_rows(batch.text) for batch in both])
    groups = {"held_out": held_out, "unlabelled": ~np.isin(text_hash, labelled)}
    return {name: _agreement(logits[rows & usable], strengths[rows & usable]) for name, rows in groups.items()}


def _read_sample(classifier: Fitted, scorer: PreSelect, place: str) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The classifier's logits of the sample's documents, and which of them training holds out."""
    logits, held_out = [], []
    for batch in _batches(place):
        logits.append(classifier.score(batch))
        hashes = hash_rows(prepare(batch.text, scorer.preprocess))
        held_out.append(uniform(hashes, HELD_OUT_SEED) < scorer.held_out)
    return np.concatenate(logits), np.concatenate(held_out)


def _agreement(logits: Floats, strengths: Floats) -> dict[str, Any]:
    """Agreement of a ranking by logits with the strengths; the count of documents alone where there are too few."""
    documents = len(logits)
    if documents < _FEWEST:
        return {"documents": documents}
    top = np.argsort(logits, kind="stable")[-(documents // _TOP) :]
    return {
        "documents": documents,
        "spearman": spearman(logits, strengths),
        "mean_strength": float(strengths.mean(dtype=np.float64)),
        "mean_strength_of_top_tenth": float(strengths[top].mean(dtype=np.float64)),
    }


def _origin(measured: LossesReport, found: Mapping[str, Any], labelled: tuple[int, int]) -> dict[str, Any]:
    """The part of the classifier's report that says what it was made from."""
    kept = ("strength", "pairs", "values", "documents", "in_order", "tied")
    return {
        "ladder": [dataclasses.asdict(one) for one in measured.models],
        "strength": {name: found[name] for name in kept},
        "labelled": {"positive": labelled[0], "negative": labelled[1]},
    }
