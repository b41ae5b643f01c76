"""Find the documents of a set that say the same as a better one that stays."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from dvsel.kernels.jit import kernel
from dvsel.linalg import cpu_matmul

Floats = npt.NDArray[np.float32]

_BLOCK = 1024  # documents that are looked at together
_KEPT = 8192  # earlier ones that they are multiplied with at once


def semantic_duplicates(
    vectors: Floats, order: npt.NDArray[np.int64], threshold: float, against: Literal["kept", "all"] = "kept"
) -> npt.NDArray[np.bool_]:
    """bool (n,): whether each document is dropped.

    vectors: (n, d) of length 1; a row of NaN is kept, and nobody's duplicate. order: a permutation, the best first.
    threshold: the cosine from which on two are the same, up to the rounding of a product, about 1e-7.

    Documents are walked through in order. `kept`: one is dropped if a kept earlier one is the same, so that each
    dropped document has a kept one beside it. `all`: if any earlier one is, dropped or not, as in SemDeDup (Abbas et
    al. 2023), where a chain of near neighbours ends far from the one that stays. Memory: the vectors once more, and
    blocks.
    """
    earlier = np.empty(vectors.shape, np.float32)
    count = 0
    dropped = np.zeros(len(vectors), bool)
    for first in range(0, len(order), _BLOCK):
        rows = order[first : first + _BLOCK]
        block = np.ascontiguousarray(vectors[rows], np.float32)
        known = _any_same(block, earlier[:count], threshold)
        if against == "all":
            known |= np.tril(_products(block, block) >= threshold, -1).any(axis=1)
            stays = np.ones(len(rows), bool)
        else:
            _walk(_products(block, block), np.float32(threshold), known)
            stays = ~known
        dropped[rows] = known
        fresh = block[stays]
        earlier[count : count + len(fresh)] = fresh
        count += len(fresh)
    return dropped


def _products(one: Floats, other: Floats) -> Floats:
    made: Floats = cpu_matmul.multiply(torch.from_numpy(one), torch.from_numpy(other)).numpy()
    return made


def _any_same(block: Floats, earlier: Floats, threshold: float) -> npt.NDArray[np.bool_]:
    same = np.zeros(len(block), bool)
    for first in range(0, len(earlier), _KEPT):
        product = _products(block, earlier[first : first + _KEPT])
        same |= np.fmax.reduce(product, axis=1) >= np.float32(threshold)  # a maximum that passes over NaN
    return same


@kernel
def _walk(product: Floats, threshold: np.float32, dropped: npt.NDArray[np.bool_]) -> None:
    """Drop those of a block that are the same as a kept one before them. dropped: what is so already."""
    for row in range(len(product)):
        if dropped[row]:
            continue
        for later in range(row + 1, len(product)):
            if product[row, later] >= threshold:
                dropped[later] = True
