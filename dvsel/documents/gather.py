"""Columns of parts of a buffer, such as the words of a text."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import PAD, Bytes, Column, Kind
from dvsel.kernels.jit import kernel

Array = npt.NDArray[Any]


def gathered(data: Bytes, begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> Column:
    """Copy the strings data[begins[i]:ends[i]] to a column."""
    offsets = np.zeros(len(begins) + 1, np.int64)
    np.cumsum(ends - begins, out=offsets[1:])
    out = np.zeros(offsets[-1] + PAD, np.uint8)
    _gather(data, begins, offsets, out)
    return Column(out, offsets, np.full(len(begins), Kind.STRING, np.uint8))


@kernel
def _gather(data: Array, begins: Array, offsets: Array, out: Array) -> None:
    for row in range(len(begins)):
        begin, first = begins[row], offsets[row]
        for at in range(offsets[row + 1] - first):
            out[first + at] = data[begin + at]
