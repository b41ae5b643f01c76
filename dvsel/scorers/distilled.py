"""Distilled scorers: what an expensive scorer says of a sample of the pool, learned by one that streams.

MATES (Yu et al. 2024, "MATES: Model-Aware Data Selection for Efficient Pretraining with Data Influence Models") and
NN-CIFT (Agarwal et al. 2025, "Neural Networks for Learnable and Scalable Influence Estimation of Instruction
Fine-Tuning Data") learn influence so, from a sample, with BERT and with a small network on embeddings. Here the
learner is linear over hashed n-grams:

    score = intercept + mean over the document's n-grams of the weight of their buckets,

fitted by ridge regression (`dvsel.ngrams.regression`). It costs what DSIR costs, as it is the same pass.

The fit goes in steps that leave files (`dvsel.distil`): the teacher, the sample, the teacher's scores of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from dvsel.errors import UserError
from dvsel.ngrams.spec import MAX_BUCKETS, MAX_NGRAMS, NgramSpec
from dvsel.options import option
from dvsel.scorers import Fitted, Scorer

if TYPE_CHECKING:
    from dvsel.shards.columns import Batch


class FittedDistilled(Fitted):
    """A distilled scorer, which stands for its teacher.

    arrays: weights float32 (groups, buckets); intercepts float64 (groups,); shares float64 (groups,); groups, their
    names as JSON, uint8.
    report: teacher, what it is and how much of the pool it scored; groups, a mapping for each with what was learned.
    """

    scorer: Distilled
    unscored = "no words"

    def __init__(self, scorer: Distilled, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        super().__init__(scorer, arrays)
        self.groups = tuple(json.loads(self.arrays["groups"].tobytes()))
        self.shares = tuple(self.arrays["shares"].tolist())
        # A copy: what comes from a file may be read-only, which would be another kernel to compile.
        self._table = np.array(self.arrays["weights"], np.float32, order="C")

    @property
    def selector(self) -> str:
        """The teacher's."""
        return str(self.report["teacher"]["selector"])

    @property
    def stands_for(self) -> str:
        """The teacher's name."""
        return str(self.report["teacher"]["scorer"])

    @property
    def title(self) -> str:
        """The teacher's, with the correlation."""
        correlations = sorted({f"{found['spearman']:.2f}" for found in self.report["groups"]}, key=float)
        ends = " to ".join(dict.fromkeys((correlations[0], correlations[-1])))
        return f"{self.scorer.teacher}, distilled (rank correlation {ends})"

    def lines(self) -> list[str]:
        """The teacher and what it cost, then how well it was learned."""
        teacher = self.report["teacher"]
        return [
            f"teacher: {self.scorer.teacher}",
            f"it scored {teacher['documents']:,} documents of the pool, {teacher['bytes']:,} bytes of text, and gave "
            f"{teacher['unscored']:,} others no score",
            "rank correlation with it (Spearman), on documents held out:",
            *map(_line, self.report["groups"]),
        ]

    def score(self, batch: Batch) -> npt.NDArray[np.float32]:
        """float32 (n,) or (n, groups); NaN for documents without words."""
        from dvsel.ngrams.lookup import score

        sums, words, ngrams = score(batch.text, self._table, self.scorer.spec)
        scores: npt.NDArray[np.float32] = (sums / np.maximum(ngrams, 1)[:, None] + self.arrays["intercepts"]).astype(
            np.float32
        )
        scores[words == 0] = np.nan
        return scores[:, 0] if len(self.groups) == 1 else scores


def _line(found: Mapping[str, Any]) -> str:
    name = f"{found['name']}: " if found["name"] else ""
    return (
        f"  {name}{found['spearman']:.3f} on {found['held_out']:,} documents, fitted on {found['trained']:,}; "
        f"{found['top_tenth']:.0%} of the teacher's best tenth are in its own best tenth"
    )


@dataclass(frozen=True)
class Distilled(Scorer):
    """Score as an expensive scorer would, learned from its scores of a sample (MATES: Yu et al. 2024).

    `--distil` with any scorer does the same; this one takes a teacher that is fitted already.
    """

    usage: ClassVar[tuple[str, ...]] = ("--pool pool/ --teacher influence.fitted",)
    steps: ClassVar[str] = "dvsel.distil:fit"
    fitted: ClassVar[type[Fitted]] = FittedDistilled

    teacher: str = option("", "the scorer to learn from: a file of dvsel fit")
    ngrams: int = option(2, f"longest n-gram in words, 1 to {MAX_NGRAMS}; shorter ones are taken too")
    buckets: int = option(1 << 16, f"buckets that n-grams are hashed into, 1 to {MAX_BUCKETS}")

    def __post_init__(self) -> None:
        _ = self.spec
        if not self.teacher:
            raise UserError(
                "distilled: no teacher; name a fitted scorer with --teacher FILE, or give another scorer and --distil"
            )

    @property
    def takes_pool(self) -> bool:
        """The teacher scores a sample of the pool."""
        return True

    @property
    def spec(self) -> NgramSpec:
        """The n-grams that documents are made of."""
        return NgramSpec(self.ngrams, self.buckets)
