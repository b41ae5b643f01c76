"""Types and shapes of each mode's arrays. Light to import: files are checked before a judge is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.schema import ArraySpec, Schema, Unfit

_CLEAN: Schema = {
    "targets": ArraySpec("float32", ("documents", "width")),
    "labels": ArraySpec("int64", ("documents",), minimum=0),
}
SCHEMAS: Mapping[str, Schema] = {
    "knn": {
        "mean": ArraySpec("float32", ("width",)),
        "vectors": ArraySpec("float32", ("documents", "width")),
        "labels": ArraySpec("int64", ("documents",), minimum=0),
        "keys": ArraySpec("int64", ("documents",)),
        "weights": ArraySpec("float32", ("features", "names")),
        "directions": ArraySpec("float32", ("features", "features")),
        "linear": ArraySpec("float64", (1,), minimum=0, maximum=1),
    },
    "margin": {
        **_CLEAN,
        "mean": ArraySpec("float32", ("width",)),
        "prices": ArraySpec("float32", ("documents",)),
    },
    "lava": {
        **_CLEAN,
        "prices": ArraySpec("float64", ("documents",), finite=False),
        "distances": ArraySpec("float64", ("names", "clean names"), finite=False),  # NaN for a label without documents
        "potentials": ArraySpec("float64", (2,), finite=False),
    },
}
"""Schemas by mode; the length `names` is the number of labels that have scores."""


def check(mode: str, arrays: Mapping[str, npt.NDArray[Any]], names: int) -> None:
    """Raise Unfit for arrays that fit the schema and do not go together. names: number of labels with scores."""
    labels = arrays["labels"]
    known = arrays["distances"].shape[1] if mode == "lava" else names
    if labels.max() >= known:
        raise Unfit(f"array labels holds a label beyond the {known} that there are")
    if mode == "margin" and not np.array_equal(np.unique(labels), np.arange(names)):
        raise Unfit("array labels leaves a label without a document")
    if mode == "knn" and len(arrays["weights"]) != arrays["vectors"].shape[1] + 1:
        raise Unfit("arrays weights and vectors do not go together")
    if mode == "lava" and not arrays["potentials"][1] >= 2:
        raise Unfit("array potentials is of fewer than 2 documents")
