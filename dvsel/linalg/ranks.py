"""Ranks with ties, and rank correlation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def average_ranks(values: npt.NDArray[np.floating]) -> Floats:
    """Return the ranks of n values, from 0, equal ones sharing the mean of theirs; float64 (n,)."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    ranks: Floats = (last - (counts - 1) / 2)[place]
    return ranks


def spearman(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float:
    """Return the rank correlation of two arrays of n numbers; 0 where one of them is constant."""
    return float(cosine(centred(average_ranks(one))[None], centred(average_ranks(other)))[0])


def centred(ranks: Floats) -> Floats:
    """Return the ranks of n values less their mean, (n - 1) / 2."""
    return ranks - (len(ranks) - 1) / 2


def cosine(rows: Floats, direction: Floats) -> Floats:
    """Return the cosine of each row with the direction; 0 for a row of zeros."""
    sizes = np.sqrt(np.square(rows).sum(axis=1) * np.square(direction).sum())
    found: Floats = np.divide(rows @ direction, sizes, out=np.zeros(len(rows)), where=sizes > 0)
    return found
