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

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dvsel.errors import Notice, UserError
from dvsel.fasttext import MOST_CHARS, evaluation
from dvsel.options import Options, every, option, provided, under

if TYPE_CHECKING:
    from dvsel.fasttext.model import Model
    from dvsel.shards.columns import Batch, Column

LABELS = ("1", "0")
"""The labels of a trained model: the first is the positive documents'."""

TRAINERS = ("dvsel", "fasttext")

HELD_OUT_SEED = 0x68656C64  # of its own, so that no other draw by the text's hash takes the same documents
_FEW = 20
_MOST_BUCKETS = 2**30
_MOST_NGRAMS = 10
_TRAINS = provided("trains", "is for training, and --model is trained; drop it, or train one with --positive")


@dataclass(frozen=True)
class Training(Options):
    """How a classifier is trained. The defaults are those of DCLM's: fastText's own, with runs of two words."""

    dim: int = option(100, "length of the vectors", when=_TRAINS)
    word_ngrams: int = option(2, f"longest run of words that is a feature, 1 to {_MOST_NGRAMS}", when=_TRAINS)
    buckets: int = option(2_000_000, "buckets that runs of words and of characters are hashed into", when=_TRAINS)
    epochs: int = option(5, "how often each document is seen", when=_TRAINS)
    learning_rate: float = option(0.1, "step size at the start; it falls to 0 linearly", when=_TRAINS)
    min_count: int = option(1, "words that occur less often are no features", when=_TRAINS)
    min_chars: int = option(0, "shortest run of characters that is a feature", when=every(_TRAINS, under("max_chars")))
    max_chars: int = option(0, "longest run of characters that is a feature; 0: none", when=_TRAINS)
    held_out: float = option(0.1, "share of the documents kept to measure the classifier", when=_TRAINS)
    trainer: str = option(
        "dvsel",
        "dvsel: the same model each time; fasttext: the library, whose models differ",
        choices=TRAINERS,
        when=_TRAINS,
    )
    training_seed: int = option(0, "seed of the first vectors and of the order of documents", when=_TRAINS)

    @property
    def trains(self) -> bool:
        """Whether there is a classifier to train."""
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dim", "word_ngrams", "buckets", "epochs", "min_count"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)}: out of range; give 1 or more")
        if self.word_ngrams > _MOST_NGRAMS:
            raise UserError(f"word_ngrams {self.word_ngrams}: out of range; give {_MOST_NGRAMS} or less")
        if self.buckets > _MOST_BUCKETS:
            raise UserError(f"buckets {self.buckets}: out of range; give {_MOST_BUCKETS} or fewer")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate {self.learning_rate}: out of range; give a number above 0, such as 0.1")
        if not 0 <= self.min_chars <= self.max_chars:
            lengths = f"min_chars {self.min_chars}, max_chars {self.max_chars}"
            raise UserError(f"{lengths}: out of order; give two lengths of 0 or more, the shorter first")
        if self.max_chars > MOST_CHARS:
            raise UserError(f"max_chars {self.max_chars}: out of range; give {MOST_CHARS} or less")
        if not 0 <= self.held_out < 1:
            raise UserError(f"held_out {self.held_out}: out of range; give a share below 1, such as 0.1")
        if self.trainer not in TRAINERS:
            raise UserError(f"trainer {self.trainer!r}: unknown; give one of {', '.join(TRAINERS)}")

    @property
    def used_buckets(self) -> int:
        """Buckets of the model: 0 where no feature is hashed, as in fastText."""
        return self.buckets if self.word_ngrams > 1 or self.max_chars > 0 else 0


@dataclass(frozen=True, slots=True)
class Examples:
    """Documents to learn from.

    text: prepared. rows: int64 (n,), which of its rows to take. positive: bool (n,). hashes: uint64 (n,), XXH64 of
    the texts.
    """

    text: Column
    rows: npt.NDArray[np.int64]
    positive: npt.NDArray[np.bool_]
    hashes: npt.NDArray[np.uint64]

    def order(self, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """A shuffle of the documents that does not depend on their order (equal texts: the positive one last)."""
        from dvsel.shards.hashing import mix

        return np.lexsort((self.positive, mix(mix(self.hashes, seed), epoch)))


def learn(
    positive: Iterable[Batch], negative: Iterable[Batch], training: Training, preprocess: str
) -> tuple[Model, dict[str, Any]]:
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
    """All prepared texts, and which are positive."""
    from dvsel.fasttext.text import prepare
    from dvsel.shards.columns import Column

    sides = [[prepare(batch.text, mode) for batch in side] for side in (positive, negative)]
    counts = [sum(len(column) for column in side) for side in sides]
    for name, count in zip(("positive", "negative"), counts, strict=True):
        if count == 0:
            raise UserError(f"{name} documents: there are none; give at least two with text")
    return Column.join(sides[0] + sides[1]), np.repeat([True, False], counts)


def _split(
    column: Column, is_positive: npt.NDArray[np.bool_], training: Training
) -> tuple[Examples, Examples, dict[str, Any]]:
    """What to learn from, what is held out, and what to report of both."""
    from dvsel.fasttext.vocabulary import word_counts
    from dvsel.shards.hashing import hash_rows, uniform

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


def _measure(model: Model, held_out: Examples) -> dict[str, Any]:
    """How well the model tells the held-out documents apart."""
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
