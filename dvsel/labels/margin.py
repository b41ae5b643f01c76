"""Margins: how much farther a document is from the clean documents of its label than from those of another.

For each label c, entropic transport from the sample's documents that carry c to the clean ones of c gives a price for
each of these, and every document x a potential f_c(x) (`dvsel.transport`, cost 1 - cos): its distance from c. The score
is

    min over other labels c of f_c(x)  -  f_own(x).

Prices of a label have mean 0, so that potentials of two labels can be compared. A label that no document of the sample
carries has prices of 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.embeddings.neighbours import unit
from dvsel.errors import Notice
from dvsel.labels.documents import Codes, Floats, Keys, Labelled
from dvsel.transport.potential import Potential
from dvsel.transport.sinkhorn import solve

_COST = "cosine"
_TOLERANCE = 0.01
_STEPS = 500


def learn(sample: Labelled, clean: Labelled, eps: float) -> dict[str, npt.NDArray[Any]]:
    """Return arrays for `Judge`; vectors are less the clean ones' mean. sample: of the pool, with labels of `clean`."""
    mean = clean.vectors.mean(0)
    documents, targets = _centred(sample.vectors, mean), _centred(clean.vectors, mean)
    rows = np.lexsort((clean.keys, clean.labels))
    labels, prices = clean.labels[rows], np.zeros(len(rows), np.float32)
    for label, name in enumerate(clean.names):
        mine = documents[sample.labels == sample.names.index(name)] if name in sample.names else documents[:0]
        if len(mine):
            prices[labels == label] = _prices(mine, targets[rows[labels == label]], eps, name)
    return {"mean": mean, "targets": targets[rows], "labels": labels, "prices": prices}


def _centred(vectors: Floats, mean: Floats) -> Floats:
    """Return vectors less the mean, at length 1; as they are where nothing is left."""
    made = unit(vectors - mean)
    return np.where(np.isnan(made), vectors, made)


def _prices(x: Floats, y: Floats, eps: float, name: bytes) -> Floats:
    found = solve(x, y, np.ones(len(x)), np.ones(len(y)), _COST, eps, _TOLERANCE, _STEPS)
    if not found.converged:
        warnings.warn(
            Notice(
                f"label {name.decode(errors='replace')!r}: transport ends with a marginal error of "
                f"{found.marginal_error:.3f}, not {_TOLERANCE}; give a higher --eps for prices that are exact"
            ),
            stacklevel=3,
        )
    return found.g


class Judge:
    """Score documents by what `learn` found.

    arrays: mean float32 (d,); targets float32 (m, d), labels int64 (m,) and prices float32 (m,), of the clean
    documents. eps: that of the fit.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]], eps: float) -> None:
        self._mean, labels = arrays["mean"], arrays["labels"]
        self._potentials = [
            Potential(arrays["targets"][mine], np.ones(mine.sum()), arrays["prices"][mine], _COST, eps)
            for mine in (labels == label for label in range(int(labels.max()) + 1))
        ]

    def score(self, vectors: Floats, labels: Codes, keys: Keys | None = None) -> Floats:  # noqa: ARG002
        """Return float32 (n,), in units of cost, for unit vectors (n, d) and labels; keys are not looked at."""
        x, rows = _centred(vectors, self._mean), np.arange(len(vectors))
        distances = np.stack([potential(x) for potential in self._potentials], axis=1)
        own = distances[rows, labels]
        distances[rows, labels] = np.inf
        margin: Floats = distances.min(axis=1) - own
        return margin
