"""Facility location: a set of documents such that each document has a similar one in it.

    f(S) = sum_i max_{j in S} s_ij,   s_ij = max(0, cos(v_i, v_j))

With no similarity below 0, f is 0 for the empty set, never falls when S grows, and is submodular: what greedy
algorithms need for their guarantees. A document whose cosines with all picks are negative is as uncovered as at first.

Documents cost (tokens, say) and a limit stands for the budget. Greedy takes the highest gain for its cost ("cost-
benefit", Lin and Bilmes 2010). With the pick that reaches the limit, f is at least 1 - 1/e of the best that any set
within the limit has (Khuller, Moss and Naor 1999 for coverage; their proof needs only submodularity). Without that pick
it is less by at most the pick's gain, which is little where documents are many; Sviridenko's (2004) enumeration of all
triples would save even that. With equal costs this is plain greedy (Nemhauser et al. 1978).

`exact` is lazy greedy (Minoux 1978): a gain never rises, so only those that could still be the highest are computed.
Otherwise stochastic greedy (Mirzasoleiman et al. 2015): each step looks at a random (n / k) ln(1 / epsilon) of the
documents, 1 - 1/e - epsilon in expectation; the old gains serve as bounds there too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dvsel.embeddings.kernels import summing_kernel
from dvsel.kernels.jit import kernel
from dvsel.linalg import cpu_matmul

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

_BLOCK = 8192  # documents whose similarities with the chosen are held at once


class Picked(NamedTuple):
    """order: int64 (k,), the documents in the order of their picks. gain: float32 (k,), by how much each raised f."""

    order: Places
    gain: Floats


def greedy(
    vectors: Floats,
    cost: Places,
    limit: int,
    seed: int,
    exact: bool = False,
    epsilon: float = 0.01,
) -> Picked:
    """Pick documents until their costs reach `limit`, or all are picked; the pick that reaches it is included.

    vectors: (n, d) of length 1, none with NaN. cost: (n,), a cost of 0 weighs as 1. seed: of the stochastic draws.
    Of equal gains for their cost the lowest row is picked, up to rounding (1e-6 of the gain). Memory: n * n float32 and
    little more, so the caller keeps n small: 268 MB for 8,192.
    """
    if not len(vectors) or limit <= 0:
        return Picked(np.empty(0, np.int64), np.empty(0, np.float32))
    similarity = _similarity(vectors, vectors)
    weight = np.maximum(cost, 1).astype(np.float32)
    gain = similarity.sum(axis=0)
    if exact:
        return Picked(*_lazy(similarity, weight, cost, limit, gain))
    picks = min(math.ceil(limit / max(float(cost.mean()), 1.0)), len(vectors))
    looks = math.ceil(len(vectors) / picks * math.log(1 / epsilon))
    return Picked(*_stochastic(similarity, weight, cost, limit, gain, looks, np.random.default_rng(seed)))


def value(vectors: Floats, chosen: Places) -> float:
    """f of the chosen rows. vectors: (n, d) of length 1, none with NaN."""
    if not len(chosen):
        return 0.0
    picks = vectors[chosen]
    return math.fsum(
        float(_similarity(vectors[first : first + _BLOCK], picks).max(axis=1).sum(dtype=np.float64))
        for first in range(0, len(vectors), _BLOCK)
    )


def taylor_log_probability(gain: Floats) -> Floats:
    """log(1 + g + g^2 / 2), float32 (k,): the log of a pick's probability, up to a constant, by its gain.

    INGENIOUS (Renduchintala et al. 2023) ranks all documents of a cell by greedy, and draws with the second order
    Taylor softmax of their gains, as they are, at temperature 1.
    """
    gain = gain.astype(np.float64)
    made: Floats = np.log1p(gain + gain * gain / 2).astype(np.float32)
    return made


def _similarity(rows: Floats, columns: Floats) -> Floats:
    one, other = (torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in (rows, columns))
    made: Floats = cpu_matmul.multiply(one, other).clamp_(min=0).numpy()
    return made


@summing_kernel
def _gain(similarity: Floats, covered: Floats) -> np.float32:
    """Return a document's gain. similarity: (n,), of it with all. covered: (n,), the highest similarity with a pick."""
    total = np.float32(0)
    for place in range(len(covered)):
        total += max(similarity[place] - covered[place], np.float32(0))
    return total


@kernel
def _cover(similarity: Floats, covered: Floats) -> None:
    for place in range(len(covered)):
        covered[place] = max(similarity[place], covered[place])


@kernel
def _lazy(similarity: Floats, weight: Floats, cost: Places, limit: int, gain: Floats) -> tuple[Places, Floats]:
    """Lazy greedy. gain: of each document alone; it is overwritten."""
    count = len(weight)
    ratio = gain / weight
    heap = np.argsort(-ratio, kind="mergesort")  # sorted, and so a heap
    fresh = np.zeros(count, np.int64)
    covered = np.zeros(count, np.float32)
    order, gains = np.empty(count, np.int64), np.empty(count, np.float32)
    picked, spent = 0, 0
    while picked < count and spent < limit:
        top = heap[0]
        # Gains only fall as more is covered. So a gain that was computed for an earlier set is an upper bound, and a
        # document whose fresh gain is still at the top is the best, whatever the others' would be.
        if fresh[top] < picked:
            gain[top] = _gain(similarity[top], covered)
            ratio[top] = gain[top] / weight[top]
            fresh[top] = picked
            _sink(heap, count - picked, ratio)
            continue
        _cover(similarity[top], covered)
        order[picked], gains[picked] = top, gain[top]
        spent += cost[top]
        picked += 1
        heap[0] = heap[count - picked]
        _sink(heap, count - picked, ratio)
    return order[:picked], gains[:picked]


@kernel
def _sink(heap: Places, count: int, ratio: Floats) -> None:
    """Bring the first of a heap, of which the highest ratio and of equal ones the lowest row is first, to its place."""
    place, moving = 0, heap[0]
    while 2 * place + 1 < count:
        child = 2 * place + 1
        if child + 1 < count and _before(heap[child + 1], heap[child], ratio):
            child += 1
        if not _before(heap[child], moving, ratio):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = moving


@kernel
def _before(one: int, other: int, ratio: Floats) -> bool:
    return ratio[one] > ratio[other] or (ratio[one] == ratio[other] and one < other)


@kernel
def _stochastic(
    similarity: Floats,
    weight: Floats,
    cost: Places,
    limit: int,
    gain: Floats,
    looks: int,
    generator: np.random.Generator,
) -> tuple[Places, Floats]:
    """Stochastic greedy with so many looks a pick. gain: of each document alone; it is overwritten."""
    count = len(weight)
    ratio = gain / weight
    left = np.arange(count)
    covered = np.zeros(count, np.float32)
    gains = np.empty(count, np.float32)
    picked, spent = 0, 0
    while picked < count and spent < limit:
        best = picked
        for place in range(picked, min(picked + looks, count)):
            drawn = place + int(generator.random() * (count - place))
            left[place], left[drawn] = left[drawn], left[place]
            row = left[place]
            # An old gain is an upper bound: where that does not beat the best so far, no fresh one is needed.
            if place > picked and not _before(row, left[best], ratio):
                continue
            gain[row] = _gain(similarity[row], covered)
            ratio[row] = gain[row] / weight[row]
            if place == picked or _before(row, left[best], ratio):
                best = place
        left[picked], left[best] = left[best], left[picked]
        row = left[picked]
        _cover(similarity[row], covered)
        gains[picked] = gain[row]
        spent += cost[row]
        picked += 1
    return left[:picked], gains[:picked]
