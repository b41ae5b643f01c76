"""Semantic deduplication: after SemDeDup (Abbas et al. 2023), against documents that stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dvsel.interface.selector import SetSelector
from dvsel.options import option

if TYPE_CHECKING:
    from dvsel.interface.candidates import Candidates


@dataclass(frozen=True)
class SemDedup(SetSelector):
    """Drop documents that say the same as a better one: the cosine of their embeddings reaches a threshold.

    Documents are looked at from the highest score down, inside k-means cells, and one goes if a document that stays
    is as near. The published rule also compares with documents that go, and so drops some without
    a like that stays. What stays is cut to the budget by score, if there is one. Documents without a vector stay.
    """

    threshold: float = option(0.95, "cosine from which on two documents say the same", above=0, maximum=1)
    against: str = option(
        "kept", "what a document is compared with: those that stay, or all (as published)", choices=("kept", "all")
    )

    @property
    def needs_budget(self) -> bool:
        """False: dropping documents bounds the subset."""
        return False

    def rank(self, candidates: Candidates) -> list[str]:
        """Set keys to the scores; to NaN for a document that is dropped."""
        from dvsel.embeddings.duplicates import semantic_duplicates
        from dvsel.embeddings.partition import cells, competing

        for part in candidates.parts():
            score = np.fmax.reduce(part.score, axis=1)
            candidates.keys[part.first : part.first + len(part)] = np.where(part.eligible, score, np.float32(np.nan))
        looked_at = dropped = 0
        for cell in cells(lambda: competing(candidates), candidates.docs, candidates.seed, candidates.scratch):
            order = np.lexsort((cell.position, ~cell.tie, -cell.score))
            same = semantic_duplicates(cell.vectors, order, self.threshold, self.against)  # type: ignore[arg-type]
            candidates.keys[cell.position[same]] = np.nan
            looked_at, dropped = looked_at + len(cell), dropped + int(same.sum())
        return [f"dropped {dropped:,} of {looked_at:,} documents, whose like stays"]
