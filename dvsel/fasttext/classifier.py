"""Fitted fastText classifiers, of the scorers `fasttext` and `preselect`.

The score is the logit of the chosen labels (`odds`), higher = keep, NaN where fastText finds no feature. A model is
folded where it can be, so that a worker holds one number for each of its features; the others, quantised ones and
those with hierarchical softmax, are kept as they are and run through the `fasttext` package.

Sums are taken in float64, so a folded classifier is exact to 1e-6. The library adds up float32 vectors and is not:
after 10,000 words, or one word 5,000 times, errors of 6e-5 in its logits and of 1.5e-5 in its probabilities were seen.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dvsel.errors import Notice, UserError
from dvsel.fasttext import MODES, tables
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.options import from_mapping, nearest
from dvsel.schema import ArraySpec, Schema, Unfit, check
from dvsel.storage.tensors import parsed

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch, Column
    from dvsel.fasttext.folded import Folded
    from dvsel.fasttext.library import Library
    from dvsel.fasttext.model import FastTextModel

Arrays = Mapping[str, npt.NDArray[Any]]

_ABOUT, _CONTENT = "about", "model"
_GOOD = ("hq", "1", "positive", "pos", "good", "high", "yes", "true")
_MOST_LISTED = 10
_LOSSES = ("softmax", "ova", "hs", "ns")
_AT_ONCE = 1 << 22  # outputs that are held at once


@dataclass(frozen=True, slots=True)
class About:
    """The meaning of a classifier's arrays.

    labels: all of the model's. chosen: those whose logit is the score. loss: the model's. folded: whether the arrays
    are a folded model, else the bytes of its file. preprocess: what is done to a text first, one of
    `dvsel.fasttext.MODES`. probability: whether the score is the library's probability.
    """

    labels: tuple[str, ...]
    chosen: tuple[str, ...]
    loss: str
    folded: bool
    preprocess: str = "space"
    probability: bool = False

    def to_array(self) -> npt.NDArray[np.uint8]:
        """Return it as JSON in uint8."""
        return np.frombuffer(json.dumps(asdict(self)).encode(), np.uint8)

    @classmethod
    def of(cls, arrays: Arrays) -> About:
        """Return what `to_array` wrote. Raises Malformed, UserError or TypeError for anything else."""
        return from_mapping(cls, parsed(arrays[_ABOUT].tobytes()), "about the classifier")

    def check(self) -> None:
        """Raise Unfit for a description that no classifier has."""
        if not self.chosen or not set(self.chosen) <= set(self.labels) or len(set(self.labels)) < len(self.labels):
            raise Unfit("its labels are not different, or those that were chosen not among them")
        if self.loss not in _LOSSES or self.preprocess not in MODES:
            raise Unfit(f"its loss {self.loss!r} or its mode {self.preprocess!r} is unknown")
        if _is_softmax(self.loss) and len(self.chosen) == len(self.labels):
            raise Unfit("all of its labels are chosen")

    @property
    def columns(self) -> int:
        """Number of outputs of a folded model."""
        if not _is_softmax(self.loss):
            return len(self.chosen)
        return 1 if len(self.labels) == 2 else len(self.labels)

    @property
    def flags(self) -> npt.NDArray[np.bool_]:
        """True for each label that is chosen, bool (labels,)."""
        return np.array([label in self.chosen for label in self.labels])

    @property
    def meaning(self) -> str:
        """The score in words."""
        what = "probability" if self.probability else "log-odds"
        others = [label for label in self.labels if label not in self.chosen]
        against = f" against {_listed(others)}" if _is_softmax(self.loss) else ""
        return f"{what} of {_listed(self.chosen)}{against}; texts prepared as {self.preprocess}"


class FittedClassifier(Fitted):
    """A fastText classifier, ready to score.

    arrays: `about`, an `About`; and those of `folded.fold`, or `model`, uint8, the bytes of the model's file.
    """

    unscored = "no feature that the model knows"

    def __init__(self, scorer: Scorer, arrays: Arrays) -> None:
        super().__init__(scorer, arrays)
        self.about = About.of(arrays)

    @classmethod
    def schema(cls, scorer: Any) -> Schema:  # noqa: ARG003
        """Return arrays of a folded model and of a file, all optional; `check` tells them apart."""
        either = {name: replace(spec, optional=True) for name, spec in tables.SCHEMA.items()}
        about, content = ArraySpec("uint8", ("letters",)), ArraySpec("uint8", ("bytes",), optional=True)
        return {**either, _ABOUT: about, _CONTENT: content}

    def check(self) -> None:
        """Raise Unfit unless the arrays are those of one of the two, and go with the labels."""
        self.about.check()
        own = set(tables.SCHEMA) if self.about.folded else {_CONTENT}
        if self.arrays.keys() != own | {_ABOUT}:
            raise Unfit(f"its arrays are not {', '.join(sorted(own))}")
        if self.about.folded:
            tables.check(self.arrays, self.about.columns)

    def lines(self) -> list[str]:
        """Return the score in words, and the report."""
        from dvsel.fasttext import evaluation

        others = [name for name in self.report if name not in evaluation.FINDINGS]
        found = [f"score: {self.about.meaning}", *(f"{name}: {_shown(self.report[name])}" for name in others)]
        return found + (evaluation.lines(self.report) if self.report.keys() >= set(evaluation.FINDINGS) else [])

    def score(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Return logits, or probabilities as the library's, float32 (n,)."""
        from dvsel.fasttext.text import prepare

        text = prepare(batch.text, self.about.preprocess)
        rows = max(_AT_ONCE // len(self.about.labels), 1)
        parts = [self._scored(_part(text, first, first + rows)) for first in range(0, len(text), rows)]
        return np.concatenate([np.empty(0, np.float32), *parts])

    def _scored(self, text: Column) -> npt.NDArray[np.float32]:
        """Score so few documents that the outputs of all labels can be held."""
        if self.about.folded:
            scores = _of_outputs(self._folded.sums(text), self.about)
        else:
            scores = _of_reported(self._library.probabilities(text), self.about)
        return scores.astype(np.float32)

    @functools.cached_property
    def _folded(self) -> Folded:
        from dvsel.fasttext.folded import Folded

        return Folded({name: array for name, array in self.arrays.items() if name != _ABOUT})

    @functools.cached_property
    def _library(self) -> Library:
        from dvsel.fasttext.library import Library

        return Library(self.arrays[_CONTENT], self.about.labels)


def classify(
    scorer: Scorer,
    model: FastTextModel,
    label: str,
    preprocess: str,
    probability: bool = False,
    report: Mapping[str, Any] | None = None,
) -> FittedClassifier:
    """Return a classifier from a model in memory, which must be foldable.

    label: as for `choose`. preprocess: the mode of `dvsel.fasttext.MODES` that the model was trained with.
    """
    return _fitted(scorer, _fold(model, choose(model.labels, label, "the model")), preprocess, probability, report)


def classify_file(
    scorer: Scorer, path: str, label: str, preprocess: str, probability: bool = False
) -> FittedClassifier:
    """Return a classifier from a model's file, `.bin` or `.ftz`. Folded arrays are kept in the user's cache folder.

    Raises UserError for a file that is not a supervised model and for labels that it does not have; warns with a
    Notice of a model that cannot be folded.
    """
    from dvsel.fasttext import cache

    key = cache.key_of(path, label)
    arrays = _usable(scorer, cache.read(key))
    if arrays is None:
        arrays = _read(path, label)
        if About.of(arrays).folded:
            cache.write(key, arrays)
    return _fitted(scorer, arrays, preprocess, probability)


def _usable(scorer: Scorer, arrays: Arrays | None) -> Arrays | None:
    """Return the arrays if they are a classifier's, else None."""
    if arrays is None:
        return None
    try:
        check(arrays, FittedClassifier.schema(scorer))
        FittedClassifier(scorer, arrays).check()
    except (UserError, TypeError, ValueError):
        return None
    return arrays


def choose(labels: Sequence[str], wanted: str, place: str) -> tuple[str, ...]:
    """Return the labels whose logit is the score, each once, in the model's order.

    wanted: one, or several with commas between, with or without `__label__`; if empty, the good one of two labels,
    by its name. Raises UserError, which begins with `place`, where that names none or several.
    """
    from dvsel.fasttext.model import PREFIX

    if not wanted:
        return (_good_one(labels, place),)
    names = [wanted] if wanted in labels else [name.strip().removeprefix(PREFIX) for name in wanted.split(",")]
    for name in names:
        if name not in labels:
            hint = nearest(name, labels) if len(labels) > _MOST_LISTED else f"it has {_listed(labels)}"
            raise UserError(f"{place}: has no label {name!r} among its {len(labels)}; {hint}")
    return tuple(label for label in labels if label in names)


def _good_one(labels: Sequence[str], place: str) -> str:
    good = [label for label in labels if label.lower() in _GOOD]
    if len(labels) == 1 or (len(labels) == 2 and len(good) == 1):
        return (good or list(labels))[0]
    raise UserError(
        f"{place}: has the labels {_listed(labels)}, and which mean keep is not plain; name them with --label"
    )


def _part(text: Column, first: int, last: int) -> Column:
    """Return the rows from `first` to before `last`, as views."""
    from dvsel.documents.columns import Column

    return Column(text.data, text.offsets[first : last + 1], text.kind[first:last])


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _MOST_LISTED} more" if len(labels) > _MOST_LISTED else ""
    return ", ".join(labels[:_MOST_LISTED]) + more


def _shown(value: Any) -> str:
    """Format a value of the report for a person."""
    match value:
        case dict():
            return ", ".join(f"{_shown(part)} {name}" for name, part in value.items())
        case bool() | str() | None:
            return str(value)
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
    return str(value)


def _is_softmax(loss: str) -> bool:
    """Return whether labels exclude each other; else each has its own odds (one-vs-all, negative sampling)."""
    return loss in ("softmax", "hs")


def _checked(model: FastTextModel, chosen: tuple[str, ...], folded: bool) -> About:
    if _is_softmax(model.loss) and len(chosen) == len(model.labels):
        raise UserError(
            f"label {','.join(chosen)}: these are all labels of the model, so all documents score alike; leave some out"
        )
    return About(model.labels, chosen, model.loss, folded)


def _read(path: str, label: str) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a model's file."""
    from dvsel.fasttext.model import read_model, why_not_foldable

    model = read_model(path)
    chosen = choose(model.labels, label, path)
    obstacle = why_not_foldable(model)
    if not obstacle:
        return _fold(model, chosen)
    warnings.warn(
        Notice(f"{path}: {obstacle}, so the fasttext package scores, at a fraction of the usual speed"), stacklevel=4
    )
    return _unfolded(model, chosen, path)


def _fold(model: FastTextModel, chosen: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
    """Return a foldable model's arrays: one column where the logit is linear, else one for each label that counts."""
    from dvsel.fasttext.folded import fold

    about = _checked(model, chosen, True)
    output = np.asarray(model.output)
    if not _is_softmax(model.loss):
        directions = output[about.flags]
    elif len(model.labels) == 2:
        directions = output[about.flags] - output[~about.flags]
    else:
        directions = output
    return {**fold(model, np.ascontiguousarray(directions, np.float32)), _ABOUT: about.to_array()}


def _unfolded(model: FastTextModel, chosen: tuple[str, ...], path: str) -> dict[str, npt.NDArray[Any]]:
    from dvsel.fasttext.library import package
    from dvsel.storage.places import open_read

    package()
    with open_read(path) as file:
        content = np.frombuffer(file.read(), np.uint8)
    return {_CONTENT: content, _ABOUT: _checked(model, chosen, False).to_array()}


def _fitted(
    scorer: Scorer, arrays: Arrays, preprocess: str, probability: bool, report: Mapping[str, Any] | None = None
) -> FittedClassifier:
    about = replace(About.of(arrays), preprocess=preprocess, probability=probability)
    fitted = FittedClassifier(scorer, {**arrays, _ABOUT: about.to_array()})
    fitted.report = dict(report or {})
    return fitted


def _of_outputs(outputs: npt.NDArray[np.float64], about: About) -> npt.NDArray[np.float64]:
    """Return scores from the outputs of the columns that `_fold` made."""
    from dvsel.fasttext import odds

    if not _is_softmax(about.loss):
        return odds.any_probability(outputs) if about.probability else odds.any_logit(outputs)
    logit = outputs[:, 0] if outputs.shape[1] == 1 else odds.softmax_logit(outputs, about.flags)
    return odds.softmax_probability(logit) if about.probability else logit


def _of_reported(reported: npt.NDArray[np.float64], about: About) -> npt.NDArray[np.float64]:
    from dvsel.fasttext import odds

    to_scores = odds.reported_probability if about.probability else odds.reported_logit
    return to_scores(reported, about.flags, about.loss)
