"""Sensitivity sampling by clusters (Axiotis et al. 2024, "Data-Efficient Learning via Clustering-Based Sensitivity
Sampling: Foundation Models and Beyond")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from dvsel.errors import UserError
from dvsel.interface.selector import SetSelector
from dvsel.options import option
from dvsel.storage.scratch import mapped

if TYPE_CHECKING:
    from dvsel.interface.candidates import Candidates

_A_CLUSTER = 256  # documents in a cluster, where the user leaves the number of clusters open
_TINY = np.finfo(np.float32).tiny  # in place of a sensitivity of 0, whose weight would be 0 / 0


@dataclass(frozen=True)
class Sensitivity(SetSelector):
    """Sample documents by how much the mean loss depends on them, and write weights that make up for it.

    The probability p of a document is in proportion to the mean loss of its cluster plus lambda times its squared
    distance from the cluster's centre. The loss is minus the score, as `dvsel score perplexity` gives it. A kept
    document's weight is 1 / (s p), at least 1: sums over the sample, so weighted, are those over the pool on average.

    The sample is drawn without replacement, by priority sampling (Duffield, Lund and Thorup 2007), which makes its size
    exact: the priority is p / u with u uniform in (0, 1), the highest are kept, and 1 / s is the highest left out.
    """

    lambda_: float = option(
        1.0, "what a squared distance of 1 from the cluster's centre counts, in units of the loss", minimum=0
    )
    clusters: int = option(0, "clusters; 0: one for 256 documents, at most 1024", minimum=0)

    weight_field: ClassVar[str] = "weight"

    def rank(self, candidates: Candidates) -> list[str]:
        """Set keys to the priorities."""
        from dvsel.embeddings.clusters import assign
        from dvsel.embeddings.partition import cells_for, centres_of, competing

        count = self.clusters or cells_for(candidates.docs, _A_CLUSTER)
        centres = centres_of(lambda: competing(candidates), candidates.docs, count, candidates.seed)
        size = (max(candidates.count, 1),)
        cell = mapped(candidates.scratch / "clusters", np.int32, size, -1)
        distance = mapped(candidates.scratch / "distances", np.float32, size, 0)
        losses, members = np.zeros(len(centres)), np.zeros(len(centres), np.int64)
        for rows in competing(candidates):
            own, far = assign(rows.vectors, centres)
            cell[rows.position], distance[rows.position] = own, far
            losses += np.bincount(own, -rows.score.astype(np.float64), len(centres))
            members += np.bincount(own, minlength=len(centres))
        means = losses / np.maximum(members, 1)
        if means.min() < 0:
            raise UserError(
                "sensitivity takes losses, which are minus the scores, and these are above 0; score with perplexity"
            )
        for part in candidates.parts():
            mine = slice(part.first, part.first + len(part))
            known = cell[mine] >= 0
            sensitivity = means[cell[mine]] + self.lambda_ * distance[mine]
            candidates.keys[mine] = np.where(known, np.maximum(sensitivity, _TINY) / part.uniform, np.nan)
        return [f"{len(centres):,} clusters; each kept document has its weight in the field {self.weight_field!r}"]

    def weight(
        self, key: npt.NDArray[np.float32], uniform: npt.NDArray[np.float64], threshold: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Return 1 / min(1, s p), float32 (n,)."""
        weight: npt.NDArray[Any] = np.maximum(threshold / (key * uniform), 1.0)
        return weight.astype(np.float32)
