"""LAVA (Just et al. 2023, "LAVA: Data Valuation without Pre-Specified Learning Algorithms"), as the paper defines it.

Documents with labels are transported to clean ones with labels, at the cost (section 3.1 there; the label distance is
that of Alvarez-Melis and Fusi 2020, "Geometric Dataset Distances via Optimal Transport")

    C((x, y), (x', y')) = |x - x'|^2 / 2 + W(y, y'),

where W(y, y') is the Sinkhorn divergence between the documents of label y and the clean ones of y', with the first term
as its cost; eps is that of the published code, 0.1, in both problems. The value of document i of n is minus the
calibrated gradient of the transport cost by its mass (equation 1 there),

    f_i - sum over j != i of f_j / (n - 1),

with f the dual potential. A document that was not in the problem has the potential that the prices of the clean
documents give it, which is the same formula at the optimum.

Vectors have length 1, so costs are at most 4, and exp(-C / eps) does not underflow in float64 for eps >= 0.01.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.errors import Notice
from dvsel.labels.documents import Codes, Floats, Keys, Labelled

Doubles = npt.NDArray[np.float64]

MOST = 4096  # documents on either side, so that a kernel takes 128 MB
_TOLERANCE = 1e-3
_STEPS = 2000
_ROWS = 1024


def learn(sample: Labelled, clean: Labelled, eps: float) -> tuple[dict[str, npt.NDArray[Any]], int]:
    """Return arrays for `Judge`, and how many of the pool's documents were transported.

    sample: of the pool, whose first documents are taken. Of the clean ones those with the lowest keys are.
    """
    chosen = np.argsort(clean.keys, kind="stable")[:MOST]
    clean = clean.take(chosen[np.argsort(clean.labels[chosen], kind="stable")])
    sample = sample.take(np.arange(min(len(sample), MOST)))
    learned: dict[str, npt.NDArray[Any]] = {"targets": clean.vectors, "labels": clean.labels}
    distances = label_distances(sample, clean, eps)
    kernel = _kernel(sample.vectors, sample.labels, clean.vectors, clean.labels, distances, eps)
    row_scale, column_scale = _scaled(kernel, np.zeros(1, np.int64))
    f, g = eps * np.log(row_scale[:, 0]), eps * np.log(column_scale)
    potentials = np.array([f.sum(), len(f)])
    return learned | {"prices": g, "distances": distances, "potentials": potentials}, len(f)


def label_distances(sample: Labelled, clean: Labelled, eps: float) -> Doubles:
    """Return W(y, y'), float64 (K, K'), of the sample's labels and the clean ones, whose documents are sorted by label.

    A label without documents has NaN.
    """
    starts, used = _starts(clean.labels)
    own = np.array([_self_cost(clean.vectors[clean.labels == label], eps) for label in used])
    distances = np.full((len(sample.names), len(clean.names)), np.nan)
    for label in np.unique(sample.labels):
        mine = sample.vectors[sample.labels == label]
        distances[label, used] = _costs(mine, clean.vectors, starts, eps) - (_self_cost(mine, eps) + own) / 2
    found: Doubles = np.maximum(distances, 0)
    return found


def _starts(labels: Codes) -> tuple[Codes, Codes]:
    """Return the first row of each label of sorted labels, and the labels."""
    used, starts = np.unique(labels, return_index=True)
    return starts, used


def _self_cost(x: Floats, eps: float) -> float:
    return float(_costs(x, x, np.zeros(1, np.int64), eps)[0])


def _costs(x: Floats, y: Floats, starts: Codes, eps: float) -> Doubles:
    """Return entropic transport costs from x to each run of rows of y, float64 (runs,); starts: of the runs."""
    kernel = np.exp((_products(x, y) - 1) / eps)
    row_scale, column_scale = _scaled(kernel, starts)
    sizes = np.diff(np.append(starts, len(y)))
    costs: Doubles = eps * (np.log(row_scale).mean(0) + np.add.reduceat(np.log(column_scale), starts) / sizes)
    return costs


def _scaled(kernel: Doubles, starts: Codes) -> tuple[Doubles, Doubles]:
    """Scale a kernel (n, m) by Sinkhorn's algorithm, each run of columns by itself, to uniform marginals.

    Returns u (n, runs) and v (m,): plans are u kernel v / (n size of the run), their columns' sums exact.
    """
    sizes = np.diff(np.append(starts, kernel.shape[1]))
    v = np.ones(kernel.shape[1])
    u = np.ones((len(kernel), len(starts)))
    for step in range(_STEPS):
        means = np.add.reduceat(kernel * v, starts, axis=1) / sizes
        if step and np.abs(u * means - 1).mean(0).max() <= _TOLERANCE:
            break
        u = 1 / means
        v = 1 / (kernel * np.repeat(u, sizes, axis=1)).mean(0)
    else:
        warnings.warn(
            Notice(f"lava: transport is not solved after {_STEPS} steps; give a higher --eps for exact values"),
            stacklevel=3,
        )
    return u, v


def _products(x: Floats, y: Floats) -> Doubles:
    return x.astype(np.float64) @ y.astype(np.float64).T


def _kernel(x: Floats, labels: Codes, y: Floats, clean_labels: Codes, distances: Doubles, eps: float) -> Doubles:
    """Return exp(-C / eps), float64 (n, m)."""
    kernel: Doubles = np.exp((_products(x, y) - 1 - distances[labels][:, clean_labels]) / eps)
    return kernel


class Judge:
    """Value documents by what `learn` found.

    arrays: targets float32 (m, d), labels int64 (m,) and prices float64 (m,) of the clean documents; distances
    float64 (K, K'); potentials float64 (2,), the sum of those of the transported documents, and their number.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]], eps: float) -> None:
        self._targets, self._labels, self._distances = arrays["targets"], arrays["labels"], arrays["distances"]
        self._column_scale = np.exp(arrays["prices"] / eps) / len(self._targets)
        self._total, self._count = arrays["potentials"].tolist()
        self._eps = eps

    def score(self, vectors: Floats, labels: Codes, keys: Keys | None = None) -> Floats:  # noqa: ARG002
        """Return float32 (n,), in units of cost, for unit vectors (n, d) and labels; keys are not looked at."""
        scores = np.empty(len(vectors), np.float32)
        for first in range(0, len(vectors), _ROWS):
            part = slice(first, first + _ROWS)
            kernel = _kernel(vectors[part], labels[part], self._targets, self._labels, self._distances, self._eps)
            f = -self._eps * np.log(kernel @ self._column_scale)
            scores[part] = -(f - (self._total - f) / (self._count - 1))
        return scores
