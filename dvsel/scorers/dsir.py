"""DSIR: data selection with importance resampling (Xie et al. 2023, "Data Selection for Language Models via
Importance Resampling"), as the paper and its package `data-selection` define it.

A document's features are its words and runs of words (n-grams), hashed into buckets. How often each bucket is
hit in the target and in the pool gives two distributions; the document's score is the log of the ratio of its
probabilities under them, the sum over its n-grams of

    log(target share + smoothing) - log(pool share + smoothing).

Where paper and package differ, and which of them is followed here:

- Smoothing: the paper has none; the package adds 1e-8 to all shares. As the package; `--smoothing` sets it.
- Hash: the package takes SHA-256 modulo the buckets; here it is a fast hash of 64 bits (`dvsel.ngrams.spec`).
  Which n-grams share a bucket is another draw of the same lottery.
- Length: the package drops documents under 100 words at selection; here they have no score, to the same end. Where
  more than 5% of a target's documents are shorter, that bound would drop the very documents that are asked for: it is
  then the largest that leaves out no more than 5% of any target. `--min-words` sets it.
- Several targets: as the package, which joins them, weighted by size, or with `separate_targets` scores the pool once
  for each and splits the budget by size or by given proportions. Here proportions may weight joined targets too.
- Sample of the pool: the package takes the head of each shard, whatever order that is in; here the flow draws
  a sample of all documents.
- Scores sum over a document's n-grams, so they spread over hundreds of nats, and resampling, whose noise
  spreads over 1.28, picks nearly the same documents as top-k. `--normalise length` takes the mean instead.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from dvsel.errors import Notice, UserError
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.ngrams.spec import MAX_BUCKETS, MAX_NGRAMS, WORDS, NgramSpec
from dvsel.options import option
from dvsel.schema import GROUPS, ArraySpec, Schema

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch

NORMALISATIONS = ("none", "length")
_MIN_WORDS = 100  # the package's bound
_SHORT = 0.05  # share of a target's documents that a bound may leave out
_Counted = tuple[npt.NDArray[np.int64], Counter[int]]


@dataclass(frozen=True)
class DSIR(Scorer):
    """Prefer documents whose n-grams are commoner in the target than in the pool (Xie et al. 2023).

    The score is the log importance weight; the selection rule is resampling by it.
    """

    group: ClassVar[str] = "no model"
    takes_target: ClassVar[bool] = True
    usage: ClassVar[tuple[str, ...]] = ("--pool pool/ --target target.jsonl",)
    selector: ClassVar[str] = "resample"

    ngrams: int = option(2, "longest n-gram in words; shorter ones are taken too", minimum=1, maximum=MAX_NGRAMS)
    buckets: int = option(10_000, "buckets that n-grams are hashed into", minimum=1, maximum=MAX_BUCKETS)
    normalise: str = option(
        "none",
        "none: sum over n-grams, as the paper; length: mean, so that resampling does not degenerate to top-k",
        choices=NORMALISATIONS,
    )
    min_words: int | None = option(
        None,
        f"documents with fewer words have no score (default: {_MIN_WORDS}; less where more than {_SHORT:.0%} of a "
        "target's are shorter)",
        minimum=0,
    )
    words: str = option("wordpunct", "what a word is: wordpunct as NLTK's, or split at whitespace", choices=WORDS)
    lower: bool = option(True, "lower-case the text first")
    smoothing: float = option(1e-8, "added to each bucket's share, in target and pool", above=0)
    separate_targets: bool = option(False, "score once for each target, and split the budget between them")
    target_proportions: str = option(
        "",
        "weights of targets, as 0.7,0.3: of their mixture, or their shares of the budget (default: by size)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.proportions

    @property
    def takes_pool(self) -> bool:
        """True: the pool's distribution is half of the ratio."""
        return True

    @property
    def spec(self) -> NgramSpec:
        """The n-grams that documents are counted by."""
        return NgramSpec(self.ngrams, self.buckets, self.words, self.lower)

    @property
    def proportions(self) -> tuple[float, ...]:
        """`target_proportions` as numbers that sum to 1; empty for none given."""
        if not self.target_proportions.strip():
            return ()
        place = f"target_proportions {self.target_proportions!r}"
        try:
            weights = [float(part) for part in self.target_proportions.split(",")]
        except ValueError:
            raise UserError(f"{place}: not a list of numbers; give one for each target, such as 0.7,0.3") from None
        total = math.fsum(weights)
        if not all(weight >= 0 for weight in weights) or not 0 < total < math.inf:
            raise UserError(f"{place}: a weight is negative, or all are 0; give each target its part, such as 0.7,0.3")
        return tuple(weight / total for weight in weights)

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> FittedDSIR:
        """Count the n-grams of the pool's sample and of each target."""
        names = list(targets)
        if not names:
            raise UserError("dsir: no target; name one with --target FILE")
        if self.proportions and len(self.proportions) != len(names):
            raise UserError(
                f"target_proportions {self.target_proportions!r}: {len(self.proportions)} numbers for "
                f"{len(names)} targets ({', '.join(names)}); give one for each, in this order"
            )
        counted = [self._counted(targets[name], f"target {name}") for name in names]
        target_counts = np.stack([counts for counts, _ in counted])
        pool_counts, _ = self._counted(pool, "the pool's sample")
        sizes = target_counts.sum(axis=1)
        shares = np.array(self.proportions) if self.proportions else sizes / sizes.sum()
        target = target_counts / sizes[:, None]
        if not self.separate_targets:
            names, target, shares = [""], shares[None, :] @ target, np.ones(1)
        log_ratio = np.log(target + self.smoothing) - np.log(pool_counts / pool_counts.sum() + self.smoothing)
        return FittedDSIR(
            self,
            {
                "log_ratio": log_ratio.astype(np.float32),
                "min_words": np.array([self._bound([lengths for _, lengths in counted])]),
            },
            groups=names,
            shares=shares,
        )

    def _counted(self, batches: Iterable[Batch], place: str) -> _Counted:
        """Count the n-grams in each bucket, int64 (buckets,), and documents by their number of words."""
        from dvsel.ngrams.lookup import count  # loads the compiler, which `--help` can do without

        counts = np.zeros(self.buckets, np.int64)
        lengths: Counter[int] = Counter()
        for batch in batches:
            found = count(batch.text, self.spec)
            counts += found.buckets
            lengths.update(
                dict(zip(*(part.tolist() for part in np.unique(found.words, return_counts=True)), strict=True))
            )
        if not counts.any():
            raise UserError(f"{place}: holds no word; give documents with text, or see --text-field")
        return counts, lengths

    def _bound(self, targets: Sequence[Counter[int]]) -> int:
        """Return the number of words that a document needs. targets: documents of each by their number of words."""
        asked = _MIN_WORDS if self.min_words is None else self.min_words
        short = max(_share_below(lengths, asked) for lengths in targets)
        if short <= _SHORT:
            return asked
        bound = asked
        if self.min_words is None:
            bound = min(_longest_bound(lengths) for lengths in targets)
        set_to = f"the bound is {bound}; --min-words sets it" if bound < asked else "these count as too short"
        warnings.warn(
            Notice(f"{short:.0%} of the target's documents have fewer than {asked} words: {set_to}"), stacklevel=3
        )
        return bound


def _share_below(lengths: Counter[int], words: int) -> float:
    return sum(count for length, count in lengths.items() if length < words) / lengths.total()


def _longest_bound(lengths: Counter[int]) -> int:
    """Return the largest bound that leaves out no more than `_SHORT` of the documents."""
    below, most = 0, _SHORT * lengths.total()
    for length in sorted(lengths):
        below += lengths[length]
        if below > most:
            return length
    return 0


class FittedDSIR(Fitted):
    """A fitted DSIR.

    arrays: log_ratio float32 (groups, buckets); min_words int64 (1,), the words that a document needs.
    """

    scorer: DSIR

    @property
    def min_words(self) -> int:
        """Words below which a document has no score."""
        return int(self.arrays["min_words"][0])

    @functools.cached_property
    def unscored(self) -> str:
        """Too few words, as a cause."""
        return f"fewer than {self.min_words} words (--min-words)" if self.min_words > 1 else "no words"

    @functools.cached_property
    def _table(self) -> npt.NDArray[np.float32]:
        # A copy: an array of a file may be read-only, and numba compiles a kernel again for a read-only one.
        return np.array(self.arrays["log_ratio"], np.float32, order="C")

    @classmethod
    def schema(cls, scorer: Any) -> Schema:
        """Return a number for each bucket and group, and the bound."""
        return {
            "log_ratio": ArraySpec("float32", ("groups", scorer.buckets)),
            "min_words": ArraySpec("int64", (1,), minimum=0),
            **GROUPS,
        }

    def score(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Return log importance weights, float32 (n,) or (n, groups); NaN for documents that are too short."""
        from dvsel.ngrams.lookup import score

        scores, words, ngrams = score(batch.text, self._table, self.scorer.spec)
        if self.scorer.normalise == "length":
            scores /= np.maximum(ngrams, 1)[:, None]
        scores[words < max(self.min_words, 1)] = np.nan
        return (scores[:, 0] if len(self.groups) == 1 else scores).astype(np.float32)


DSIR.fitted = FittedDSIR
