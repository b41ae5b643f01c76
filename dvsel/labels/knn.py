"""Likelihood of a document's label by the labels of others, of which none is known to be right.

Two estimates of the share of each label among documents like this one are averaged; neither counts the document itself:

- neighbours: votes of the k nearest documents of the index, weighted by exp(cos / 0.2). Vectors are those of the
  documents less the index's mean, at length 1 again (z).
- linear: ridge regression of the labels, as 0 and 1, on z and a constant. With A = (Z'Z + ridge I)^-1 and the leverage
  h = z' A z, a document of the index is left out in closed form (Allen 1974, the PRESS statistic):
  (prediction - h y) / (1 - h). The ridge is the one of six with the least squared error on documents left out.

The linear estimate's weight w is that of least squared error too, but between 1/2 and 1: least squares alone
underrates it, since the ridge draws it towards the mean (stacked regressions: Breiman 1996). The score is

    log (share of the document's own label + 0.05) - log (largest share of another label + 0.05),

so it lies within +-3.05 and is above 0 where the label is the likeliest one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.embeddings.neighbours import nearest, unit
from dvsel.labels.documents import Codes, Floats, Keys, Labelled

Arrays = Mapping[str, npt.NDArray[Any]]
Doubles = npt.NDArray[np.float64]

_WIDTH = 0.2  # of the kernel, in units of cos
_RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # in units of the mean eigenvalue of Z'Z
_FLOOR = 0.05
_CALIBRATION = 4096  # documents of the index on which ridge and weight are chosen
_ROWS = 1024
_ALIKE = 1e-6


@dataclass(frozen=True)
class Learned:
    """arrays: for `Judge`. ridge: in units of the mean eigenvalue. linear: that estimate's weight."""

    arrays: dict[str, npt.NDArray[Any]]
    ridge: float
    linear: float


def learn(sample: Labelled, neighbours: int) -> Learned | None:
    """Learn from documents of at least two labels; None where their vectors are all the same."""
    mean = sample.vectors.astype(np.float64).mean(0)
    centred = _centred(sample.vectors, mean)
    if not (rows := np.flatnonzero(~np.isnan(centred).any(axis=1))).size:
        return None
    sample, centred = sample.take(rows), centred[rows]
    head, ridge = _Ridge.fitted(centred, sample.labels, len(sample.names))
    arrays = {"mean": mean.astype(np.float32), "vectors": centred, "labels": sample.labels, "keys": sample.keys}
    arrays |= {"weights": head.weights, "directions": head.directions, "linear": np.ones(1)}
    linear = _weight(Judge(arrays, neighbours))
    return Learned(arrays | {"linear": np.array([linear])}, ridge, linear)


def _centred(vectors: Floats, mean: npt.NDArray[np.floating]) -> Floats:
    """Less the mean, at length 1; NaN where nothing is left."""
    left = vectors - mean
    left[np.linalg.norm(left, axis=1) < _ALIKE] = np.nan
    return unit(left)


@dataclass(frozen=True)
class _Ridge:
    """Ridge regression of labels.

    weights: float32 (d + 1, K). directions: float32 (d + 1, d + 1), so that the leverage is |z' directions|^2.
    """

    weights: Floats
    directions: Floats

    @classmethod
    def fitted(cls, z: Floats, labels: Codes, classes: int) -> tuple[_Ridge, float]:
        """The regression, and its ridge in units of the mean eigenvalue."""
        rows = _with_constant(z).astype(np.float64)
        values, axes = np.linalg.eigh(rows.T @ rows)
        moments = axes.T @ np.stack([rows[labels == label].sum(0) for label in range(classes)], axis=1)
        few = slice(0, _CALIBRATION)
        turned, truth = rows[few] @ axes, _indicators(labels[few], classes)
        scales = {ridge: 1 / (np.maximum(values, 0) + ridge * values.mean()) for ridge in _RIDGES}
        best = min(_RIDGES, key=lambda ridge: _left_out_error(turned, truth, moments, scales[ridge]))
        scale = scales[best]
        weights, directions = axes @ (scale[:, None] * moments), axes * np.sqrt(scale)
        return cls(weights.astype(np.float32), directions.astype(np.float32)), best

    def shares(self, z: Floats, own: Codes) -> Floats:
        """Estimated shares of labels, float32 (n, K). own: the label that a row was fitted with, -1 for none."""
        rows = _with_constant(z)
        shares: Floats = rows @ self.weights
        mine = np.flatnonzero(own >= 0)
        leverage = np.square(rows[mine] @ self.directions).sum(1, keepdims=True)
        truth = _indicators(own[mine], shares.shape[1])
        # What the fit would say of a row without that row, in closed form: no fit for each row.
        shares[mine] = (shares[mine] - leverage * truth) / np.maximum(1 - leverage, _ALIKE)
        return shares


def _left_out_error(turned: Doubles, truth: Doubles, moments: Doubles, scale: Doubles) -> float:
    """Return the squared error of predictions for documents left out, summed. turned: rows along the axes."""
    residual = truth - turned @ (scale[:, None] * moments)
    return float(np.square(residual / (1 - np.square(turned) @ scale)[:, None]).sum())


def _with_constant(z: Floats) -> Floats:
    return np.concatenate([z, np.ones((len(z), 1), np.float32)], axis=1)


def _indicators(labels: Codes, classes: int) -> Doubles:
    made = np.zeros((len(labels), classes))
    made[np.arange(len(labels)), labels] = 1
    return made


class Judge:
    """Score documents by what `learn` found.

    arrays: mean float32 (d,); vectors float32 (m, d), labels int64 (m,) and keys int64 (m,) of the index; weights and
    directions of the regression; linear float64 (1,), its weight. neighbours: at most so many vote.
    """

    def __init__(self, arrays: Arrays, neighbours: int) -> None:
        self.mean, self.labels = arrays["mean"], arrays["labels"]
        self.vectors = np.require(arrays["vectors"], requirements="W")  # which torch wants
        self._ridge = _Ridge(arrays["weights"], arrays["directions"])
        self._linear = float(arrays["linear"][0])
        self._order = np.argsort(arrays["keys"], kind="stable")
        self._keys = arrays["keys"][self._order]
        self._neighbours = min(neighbours, len(self.vectors))

    @property
    def classes(self) -> int:
        """The number of labels."""
        return int(self._ridge.weights.shape[1])

    def score(self, vectors: Floats, labels: Codes, keys: Keys) -> Floats:
        """float32 (n,), for unit vectors (n, d), labels and keys; NaN for a vector that is the mean."""
        scores = np.full(len(vectors), np.nan, np.float32)
        z, places = _centred(vectors, self.mean), self.places(keys)
        rows = np.flatnonzero(~np.isnan(z).any(axis=1))
        for part in _parts(rows):
            by_neighbours, by_ridge = self.estimates(z[part], places[part])
            shares = self._linear * by_ridge + (1 - self._linear) * by_neighbours
            scores[part] = _log_ratio(shares, labels[part])
        return scores

    def places(self, keys: Keys) -> Codes:
        """Return each document's row of the index, int64 (n,); -1 where it is not there."""
        found = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        places: Codes = np.where(self._keys[found] == keys, self._order[found], -1)
        return places

    def estimates(self, z: Floats, places: Codes) -> tuple[Floats, Floats]:
        """Return labels' shares by neighbours and by regression, float32 (n, K) each, without `places` of the index."""
        index, similarity = nearest(z, self.vectors, self._neighbours, places)
        weights = np.where(index < 0, 0, np.exp((similarity - similarity[:, :1]) / _WIDTH))
        cells = np.arange(len(z))[:, None] * self.classes + self.labels[index]
        votes = np.bincount(cells.ravel(), weights.ravel(), len(z) * self.classes).reshape(len(z), -1)
        own = np.where(places < 0, -1, self.labels[places])
        by_neighbours = (votes / votes.sum(1, keepdims=True)).astype(np.float32)
        return by_neighbours, self._ridge.shares(z, own)


def _parts(rows: Codes) -> Iterator[Codes]:
    return (rows[first : first + _ROWS] for first in range(0, len(rows), _ROWS))


def _log_ratio(shares: Floats, labels: Codes) -> Floats:
    """Return the log of the label's share over the largest other one, float32 (n,)."""
    rows = np.arange(len(shares))
    shares = np.maximum(shares, 0) + np.float32(_FLOOR)
    own = shares[rows, labels]
    shares[rows, labels] = 0
    ratio: Floats = np.log(own / shares.max(1))
    return ratio


def _weight(judge: Judge) -> float:
    """Find the weight of the linear estimate with the least squared error on documents left out, at least 1/2."""
    along = length = 0.0
    for part in _parts(np.arange(min(len(judge.vectors), _CALIBRATION))):
        by_neighbours, by_ridge = judge.estimates(judge.vectors[part], part)
        step = by_ridge - by_neighbours
        along += float((step * (_indicators(judge.labels[part], judge.classes) - by_neighbours)).sum())
        length += float(np.square(step).sum())
    return min(max(along / length, 0.5), 1.0) if length else 0.5
