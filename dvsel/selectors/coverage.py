"""Facility location inside clusters: INGENIOUS (Renduchintala et al. 2023, "INGENIOUS: Using Informative Data Subsets
for Efficient Pre-Training of Language Models")."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from dvsel.documents.hashing import uniform
from dvsel.interface.selector import SetSelector
from dvsel.options import option, under

if TYPE_CHECKING:
    from dvsel.embeddings.partition import Members
    from dvsel.interface.candidates import Candidates

_REACH = 4  # times its even share of the budget, up to which a cell's documents are ordered


@dataclass(frozen=True)
class Coverage(SetSelector):
    """Keep documents such that every document of the pool has a similar one among them.

    Facility location, greedily, inside k-means cells: a cell's documents are ordered by how much each adds to the
    similarity (cosine) of all to the nearest kept one, for its cost in the budget's unit. The cells then compete: those
    that gain most for their cost are kept, whichever cell they are of, so a cell with much to cover gets more.

    Lazy greedy (Minoux 1978) costs no more than stochastic greedy (Mirzasoleiman et al. 2015) in cells of this size,
    since the similarities cost most, and finds more; so it is the default.
    """

    sampling: str = option(
        "greedy",
        "greedy: the highest gains; gain: sampled in proportion to the gains' Taylor-softmax, as INGENIOUS does",
        choices=("greedy", "gain"),
    )
    stochastic: bool = option(False, "look at a random part of a cell in each step, not at all of it")
    epsilon: float = option(
        0.01, "the smaller, the larger that random part", above=0, below=1, when=under("stochastic")
    )

    divides_budget: ClassVar[bool] = True

    def rank(self, candidates: Candidates) -> list[str]:
        """Set keys to the gain for its cost, or with `sampling` gain to the log of the weight plus Gumbel noise."""
        from dvsel.embeddings.partition import cells, competing

        count, ends = 0, []
        for cell in cells(lambda: competing(candidates), candidates.docs, candidates.seed, candidates.scratch):
            order, key = self._ordered(cell, candidates)
            candidates.keys[order] = key
            count += 1
            if len(key) < len(cell):
                ends.append(float(key[-1]) if len(key) else np.inf)
        notes = [f"{count:,} cells compete by what their documents add"]
        return notes if self.sampling == "gain" else notes + _short(candidates, np.array(ends))

    def _ordered(self, cell: Members, candidates: Candidates) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return positions of the cell's documents in greedy's order, as many as are needed, and float32 keys."""
        from dvsel.embeddings.facility import greedy, taylor_log_probability

        cell = cell.take(np.argsort(cell.tie, kind="stable"))  # equal gains go by the order of rows
        cost, total = cell.cost, int(cell.cost.sum())
        limit = min(int(_REACH * total * _share(candidates)) + 1, total)
        if self.sampling == "gain":
            cost, limit = np.ones(len(cell), np.int64), len(cell)
        seed = int(cell.tie[0]) if len(cell) else 0
        order, gain = greedy(cell.vectors, cost, limit, seed, not self.stochastic, self.epsilon)
        if self.sampling == "greedy":
            # With unequal costs a gain for its cost may exceed the one before it; keys must keep greedy's order.
            key = np.minimum.accumulate(gain / np.maximum(cost[order], 1))
        else:
            key = taylor_log_probability(gain) - np.log(-np.log(uniform(cell.tie[order], candidates.seed)))
        return cell.position[order], key.astype(np.float32)


def _share(candidates: Candidates) -> float:
    """Return the budget as a share of the cost of all documents."""
    return 1.0 if candidates.limit is None else candidates.limit / max(candidates.cost, 1)


def _short(candidates: Candidates, ends: npt.NDArray[np.float64]) -> list[str]:
    """Return a note where cells ran out of ordered documents. ends: the lowest keys of cells that have more."""
    from dvsel.budgets.exact_cut import Chunk, cut

    def chunks() -> Iterator[Chunk]:
        for part in candidates.parts():
            stratum = np.where(part.eligible, 0, -1).astype(np.int32)
            keys = candidates.keys[part.first : part.first + len(part)]
            yield Chunk(part.first, keys, part.tie, part.cost, stratum)

    if candidates.limit is None:
        return []
    found = cut(lambda: [chunks()], np.array([candidates.limit]))
    short = int((ends > found.threshold[0]).sum())
    return [f"{short:,} of them were used up to {_REACH} times their share, and might have given more"] if short else []
