"""Euclidean k-means: centres from a sample, and the cell of any vector.

Euclidean, not spherical: sensitivity sampling (Axiotis et al. 2024) is about squared distances to means, and vectors of
length 1 lose nothing by it, since their squared distance is 2 - 2 cos. Centres are means and so shorter than 1.

Seeds are greedy k-means++ (Arthur and Vassilvitskii 2007: in each turn the best of a few draws), as scikit-learn's, but
on a part of the sample, `_SEEDING` rows a centre: passes over all rows for each centre would take longer than all of
Lloyd's steps. The rows come shuffled by the seed. Sums are in float64 and in the order of the rows, so that the number
of threads has no say in them; products of matrices may round by it, which moves a row only between centres that are
equally near within 1e-6.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from dvsel.embeddings.kernels import squared_distance, summing_kernel
from dvsel.kernels.jit import kernel
from dvsel.linalg import cpu_matmul

Floats = npt.NDArray[np.float32]
Cells = npt.NDArray[np.int32]

_SEEDING = 32  # rows a centre that seeds are drawn from
_PRODUCTS = 1 << 23  # numbers in a block of products
_STILL = 1e-4  # of the variance: centres that move by less, squared and in the mean, have arrived; scikit-learn's rule


def fit_centres(sample: Floats, count: int, seed: int, steps: int = 25) -> Floats:
    """Centres of at most `count` cells, float32 (k, d).

    sample: (n, d); rows with NaN are passed over. seed: of the draws. steps: of Lloyd's algorithm, at most; it ends
    where no row changes its cell, or the centres hardly move. A cell that loses all its rows gets the row that is
    farthest from its own centre. k is less than `count` where the sample has fewer distinct rows.
    """
    generator = np.random.default_rng(seed)
    rows = np.flatnonzero(~np.isnan(sample).any(axis=1))
    rows = generator.permutation(rows)
    sample = np.ascontiguousarray(sample[rows], np.float32)
    return improved(sample, _seeds(sample, count, generator), steps)


def assign(vectors: Floats, centres: Floats) -> tuple[Cells, Floats]:
    """The nearest centre of each vector, int32 (n,), and the squared distance to it, float32 (n,).

    -1 and NaN for vectors with NaN. Of centres that are equally near, the first.
    """
    vectors, centres = (np.ascontiguousarray(rows, np.float32) for rows in (vectors, centres))
    cell = np.empty(len(vectors), np.int32)
    half = torch.from_numpy(-0.5 * (centres * centres).sum(axis=1))
    transposed = torch.from_numpy(centres)
    step = max(_PRODUCTS // max(len(centres), 1), 1)
    for first in range(0, len(vectors), step):
        block = torch.from_numpy(vectors[first : first + step])
        cell[first : first + step] = cpu_matmul.multiply(block, transposed, half).argmax(dim=1).numpy()
    cell[np.isnan(vectors).any(axis=1)] = -1
    distance = np.full(len(vectors), np.nan, np.float32)
    _distances(vectors, centres, cell, distance)
    return cell, distance


def improved(sample: Floats, centres: Floats, steps: int) -> Floats:
    """The centres after at most so many of Lloyd's steps, float32 (k, d). sample: (n, d) without NaN."""
    still = _STILL * sample.var(axis=0, dtype=np.float64).mean() if len(sample) else 0.0
    before = None
    for _ in range(steps):
        cell, distance = assign(sample, centres)
        if before is not None and np.array_equal(cell, before):
            break
        moved = _means(sample, cell, distance, centres)
        shift = float(((moved - centres).astype(np.float64) ** 2).sum())
        centres, before = moved, cell
        if shift <= still:
            break
    return centres


def _means(sample: Floats, cell: Cells, distance: Floats, centres: Floats) -> Floats:
    """The mean of each cell's rows; for an empty cell the farthest row, which leaves its cell."""
    sizes = np.bincount(cell, minlength=len(centres))
    empty = np.flatnonzero(sizes == 0)
    if len(empty):
        farthest = np.argsort(-distance, kind="stable")[: len(empty)]
        # Never a row that equals its centre: two centres would be equal, and one cell empty again.
        farthest = farthest[distance[farthest] > 0]
        cell = cell.copy()
        cell[farthest] = empty[: len(farthest)]
        sizes = np.bincount(cell, minlength=len(centres))
    # float64, row by row: means do not depend on how a sum of float32 numbers is cut up.
    sums = np.zeros(centres.shape, np.float64)
    _add_up(sample, cell, sums)
    with np.errstate(invalid="ignore"):
        means = (sums / sizes[:, None]).astype(np.float32)
    return np.where(sizes[:, None] > 0, means, centres)


def _seeds(sample: Floats, count: int, generator: np.random.Generator) -> Floats:
    """Rows of the sample, all different, as many as there are centres; rows of the sample are shuffled."""
    part = sample[: count * _SEEDING]
    chosen = _plus_plus(part, count, generator)
    if len(chosen) < count and len(part) < len(sample):
        part = sample
        chosen = _plus_plus(part, count, generator)
    return part[chosen]


def _plus_plus(rows: Floats, count: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rows, drawn in turn with probability proportional to the squared distance to the nearest that is chosen.

    Of a few that are drawn, that one is chosen which brings the rows nearest.
    """
    distance = np.full(len(rows), np.inf, np.float32)
    draws = 2 + int(math.log(count))
    chosen: list[int] = []
    weight = np.ones(len(rows))
    while len(chosen) < count and weight.any():
        ends = np.cumsum(weight)
        drawn = np.searchsorted(ends, generator.random(draws) * ends[-1], side="right")
        best = drawn[_sums_if_chosen(rows, rows[drawn], distance).argmin()] if chosen else drawn[0]
        chosen.append(int(best))
        _bring_near(rows, rows[best], distance)
        weight = distance.astype(np.float64)
    return np.array(chosen, np.int64)


def _sums_if_chosen(rows: Floats, drawn: Floats, distance: Floats) -> npt.NDArray[np.float64]:
    """Return the sum of all distances with each draw as the next centre, up to rounding; float64 (draws,)."""
    # By a product of matrices, as |x|^2 + |y|^2 - 2 <x, y>: it rounds, but only chooses between draws.
    product = cpu_matmul.multiply(torch.from_numpy(rows), torch.from_numpy(drawn)).numpy()
    sums = np.zeros(len(drawn))
    _add_nearer(product, (rows * rows).sum(axis=1), (drawn * drawn).sum(axis=1), distance, sums)
    return sums


@kernel
def _add_nearer(product: Floats, rows: Floats, drawn: Floats, distance: Floats, sums: npt.NDArray[np.float64]) -> None:
    """rows, drawn: their squared lengths."""
    for row in range(len(product)):
        for place in range(len(drawn)):
            squared = rows[row] + drawn[place] - np.float32(2) * product[row, place]
            sums[place] += max(min(squared, distance[row]), np.float32(0))


@summing_kernel
def _bring_near(rows: Floats, row: Floats, distance: Floats) -> None:
    for place in range(len(rows)):
        distance[place] = min(distance[place], squared_distance(rows[place], row))


@summing_kernel
def _distances(vectors: Floats, centres: Floats, cell: Cells, distance: Floats) -> None:
    for row in range(len(vectors)):
        if cell[row] >= 0:
            distance[row] = squared_distance(vectors[row], centres[cell[row]])


@kernel
def _add_up(sample: Floats, cell: Cells, sums: npt.NDArray[np.float64]) -> None:
    for row in range(len(sample)):
        one = cell[row]
        for place in range(sample.shape[1]):
            sums[one, place] += sample[row, place]
