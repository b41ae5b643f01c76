"""What a classifier learns from, and how it is trained: examples with their labels, and the options of training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dvsel.errors import UserError
from dvsel.fasttext import MOST_CHARS
from dvsel.options import Options, every, option, provided, under

if TYPE_CHECKING:
    from dvsel.documents.columns import Column

LABELS = ("1", "0")
"""The labels of a trained model: the first is the positive documents'."""


TRAINERS = ("dvsel", "fasttext")


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
        from dvsel.documents.hashing import mix

        return np.lexsort((self.positive, mix(mix(self.hashes, seed), epoch)))
