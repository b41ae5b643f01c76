"""Training of a classifier: its options, and the examples with their labels."""

from __future__ import annotations

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
"""The labels of a trained model; the first is that of positive documents."""


TRAINERS = ("dvsel", "fasttext")


_MOST_BUCKETS = 2**30


_MOST_NGRAMS = 10


_TRAINS = provided("trains", "is for training, and --model is trained; drop it, or train one with --positive")


@dataclass(frozen=True)
class Training(Options):
    """Options of training. The defaults are DCLM's: fastText's own, with runs of two words."""

    dim: int = option(100, "length of the vectors", minimum=1, when=_TRAINS)
    word_ngrams: int = option(
        2, "longest run of words that is a feature", minimum=1, maximum=_MOST_NGRAMS, when=_TRAINS
    )
    buckets: int = option(
        2_000_000,
        "buckets that runs of words and of characters are hashed into",
        minimum=1,
        maximum=_MOST_BUCKETS,
        when=_TRAINS,
    )
    epochs: int = option(5, "how often each document is seen", minimum=1, when=_TRAINS)
    learning_rate: float = option(0.1, "step size at the start; it falls to 0 linearly", above=0, when=_TRAINS)
    min_count: int = option(1, "words that occur less often are no features", minimum=1, when=_TRAINS)
    min_chars: int = option(
        0, "shortest run of characters that is a feature", minimum=0, when=every(_TRAINS, under("max_chars"))
    )
    max_chars: int = option(
        0, "longest run of characters that is a feature; 0: none", minimum=0, maximum=MOST_CHARS, when=_TRAINS
    )
    held_out: float = option(
        0.1, "share of the documents kept to measure the classifier", minimum=0, below=1, when=_TRAINS
    )
    trainer: str = option(
        "dvsel",
        "dvsel: the same model each time; fasttext: the library, whose models differ",
        choices=TRAINERS,
        when=_TRAINS,
    )
    training_seed: int = option(0, "seed of the first vectors and of the order of documents", when=_TRAINS)

    @property
    def trains(self) -> bool:
        """True where there is a classifier to train."""
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_chars > self.max_chars:
            lengths = f"min_chars {self.min_chars}, max_chars {self.max_chars}"
            raise UserError(f"{lengths}: out of order; give two lengths, the shorter first")

    @property
    def used_buckets(self) -> int:
        """The model's buckets: 0 where no feature is hashed, as in fastText."""
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
        """Shuffle the documents, whatever their order; of equal texts the positive one is last."""
        from dvsel.documents.hashing import mix

        return np.lexsort((self.positive, mix(mix(self.hashes, seed), epoch)))
