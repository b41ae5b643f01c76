"""Train a fastText classifier of two labels, and measure it on documents that it has not seen.

The classifier is fastText's supervised one: the vectors of a document's features (words and hashed runs of words,
`vocabulary`) are averaged, and a softmax over two labels of that mean is fitted by stochastic gradient descent.
Which documents are held out depends on their texts alone, and so does the order in which the others are learned: the
same documents give the same model, in whatever order, batches and shards they come.

Two trainers share this:

- "dvsel" (`sgd`) runs in one thread and gives the same bytes for the same seed, on every machine.
- "fasttext" (`library_training`) runs the library, whose threads race: no two of its models are alike.

Memory: the texts; 4 bytes for each word and then 4 for each feature (twice as many with `word_ngrams` 2);
4 * dim bytes for each word of the vocabulary and each bucket (0.8 GB at the defaults).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dvsel.errors import Notice, UserError
from dvsel.fasttext import evaluation
from dvsel.fasttext.examples import LABELS, Examples, Training

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch, Column
    from dvsel.fasttext.model import FastTextModel


HELD_OUT_SEED = 0x68656C64  # of its own, so that no other draw by the text's hash takes the same documents
_FEW = 20


def learn(
    positive: Iterable[Batch], negative: Iterable[Batch], training: Training, preprocess: str
) -> tuple[FastTextModel, dict[str, Any]]:
    """Train a classifier that tells `positive` documents from `negative` ones.

    preprocess: how texts are prepared, one of `dvsel.fasttext.MODES`; score with the same one.
    Returns the model, with `LABELS`, and a report of plain values: `trained` (documents of each side), `empty` (those
    without a word, which are left out), `in_both` (different texts that are on both sides), and what
    `evaluation.evaluate` finds on the held-out documents.
    Raises UserError where a side has fewer than two documents, or none that is not held out.
    """
    column, is_positive = _read(positive, negative, preprocess)
    trained, held_out, report = _split(column, is_positive, training)
    if training.trainer == "fasttext":
        from dvsel.fasttext.library_training import train
    else:
        from dvsel.fasttext.sgd import train
    model = train(trained, training)
    return model, report | _measure(model, held_out)


def _read(positive: Iterable[Batch], negative: Iterable[Batch], mode: str) -> tuple[Column, npt.NDArray[np.bool_]]:
    """Read all texts, prepared, and which of them are positive."""
    from dvsel.documents.columns import Column
    from dvsel.fasttext.text import prepare

    sides = [[prepare(batch.text, mode) for batch in side] for side in (positive, negative)]
    counts = [sum(len(column) for column in side) for side in sides]
    for name, count in zip(("positive", "negative"), counts, strict=True):
        if count == 0:
            raise UserError(f"{name} documents: there are none; give at least two with text")
    return Column.join(sides[0] + sides[1]), np.repeat([True, False], counts)


def _split(
    column: Column, is_positive: npt.NDArray[np.bool_], training: Training
) -> tuple[Examples, Examples, dict[str, Any]]:
    """Split the examples: those to learn from, those held out, and a report of both."""
    from dvsel.documents.hashing import hash_rows, uniform
    from dvsel.fasttext.vocabulary import word_counts

    hashes = hash_rows(column)
    used = word_counts(column) > 0
    is_held_out = uniform(hashes, HELD_OUT_SEED) < training.held_out

    def examples(mask: npt.NDArray[np.bool_]) -> Examples:
        rows = np.flatnonzero(mask)
        return Examples(column, rows, is_positive[rows], hashes[rows])

    trained, held_out = examples(used & ~is_held_out), examples(used & is_held_out)
    for name, side in (("positive", is_positive), ("negative", ~is_positive)):
        _check_side(name, int((side & used).sum()), int((side & used & ~is_held_out).sum()), training)
    report = {
        "trained": {"positive": int(trained.positive.sum()), "negative": int((~trained.positive).sum())},
        "empty": int((~used).sum()),
        "in_both": _in_both(hashes[used & is_positive], hashes[used & ~is_positive]),
    }
    return trained, held_out, report


def _check_side(name: str, count: int, trained: int, training: Training) -> None:
    if count < 2:
        raise UserError(f"{name} documents: {count} with a word, too few to learn from; give more")
    if trained == 0:
        raise UserError(f"{name} documents: all {count} are held out; give more, or lower held_out {training.held_out}")


def _in_both(positive: npt.NDArray[np.uint64], negative: npt.NDArray[np.uint64]) -> int:
    shared = len(np.intersect1d(positive, negative))
    if shared:
        text = "text is" if shared == 1 else "texts are"
        warnings.warn(
            Notice(f"training: {shared:,} {text} both positive and negative, which teaches nothing"), stacklevel=2
        )
    return shared


def _measure(model: FastTextModel, held_out: Examples) -> dict[str, Any]:
    """Measure how well the model tells the held-out documents apart."""
    from dvsel.fasttext.folded import Folded, fold

    positive, negative = (model.output[model.labels.index(label)] for label in LABELS)
    logits = Folded(fold(model, (positive - negative)[None, :])).sums(held_out.text.take(held_out.rows))[:, 0]
    report = evaluation.evaluate(logits, held_out.positive)
    if min(report["positives"], report["documents"] - report["positives"]) < _FEW:
        if len(held_out.rows):
            cause = f"fewer than {_FEW} documents of a side are held out"
            warnings.warn(Notice(f"training: {cause}; what they tell about the classifier is rough"), stacklevel=2)
    elif not evaluation.above_chance(report):
        cause = "the classifier tells held-out documents apart no better than chance"
        warnings.warn(Notice(f"training: {cause} (area under the ROC {report['area']:.3f})"), stacklevel=2)
    return report
