"""Exact nearest neighbours by inner product, in bounded memory.

Products are torch's, through oneDNN where `dvsel.linalg.cpu_matmul` finds it the faster; everywhere else faiss does the
search if it is installed. Measured on one core of an AMD EPYC, 10 neighbours of 10,000 queries of 384 numbers among
50,000: torch with oneDNN and faiss take the same time, torch with MKL twice as long. All give the same answer up to the
rounding of a product, about 1e-7: rows whose similarities differ by less may change places.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from dvsel.linalg import cpu_matmul

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

_QUERIES = 1024  # rows of a block of products
_BASE = 8192  # columns


def unit(vectors: npt.NDArray[np.floating]) -> Floats:
    """The rows at length 1, float32 (n, d); NaN where a row is zero or not finite."""
    rows = vectors.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
        rows /= largest  # so that no square overflows or vanishes
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[~np.isfinite(rows).all(axis=1)] = np.nan
    return rows.astype(np.float32)


def nearest(queries: Floats, base: Floats, count: int, skip: Places | None = None) -> tuple[Places, Floats]:
    """The rows of `base` with the highest inner products with each query, highest first, ties by the lower row.

    queries: (n, d). base: (m, d). count: how many, at least 1. skip: int64 (n,), for each query one row of the base
    that is not to be its neighbour, such as itself; -1 for none.
    Returns rows int64 (n, count) and products float32 (n, count). Where there are fewer, and for a query of NaN, the
    rest is -1 and NaN. A row of the base with NaN is nobody's neighbour.
    """
    rows = np.flatnonzero(~np.isnan(base).any(axis=1))
    wanted = min(count + (skip is not None), len(rows))
    # One more where a row is skipped, since it may be among the nearest.
    index = np.full((len(queries), count + (skip is not None)), -1, np.int64)
    similarity = np.full(index.shape, np.nan, np.float32)
    asked = np.flatnonzero(~np.isnan(queries).any(axis=1))
    if wanted and len(asked):
        found = _searched(_take(queries, asked), _take(base, rows), wanted)
        index[asked, :wanted] = rows[found[0]]
        similarity[asked, :wanted] = found[1]
    if skip is not None:
        index, similarity = _without(index, similarity, skip)
    return index, similarity


def _take(vectors: Floats, rows: Places) -> Floats:
    whole = vectors if len(rows) == len(vectors) else vectors[rows]
    return np.ascontiguousarray(whole, np.float32)


def _without(index: Places, similarity: Floats, skip: Places) -> tuple[Places, Floats]:
    """Drop one column: from each row its skipped place, or its last."""
    keep = index != np.where(skip < 0, -2, skip)[:, None]
    keep[keep.all(axis=1), -1] = False
    shape = len(index), index.shape[1] - 1
    return index[keep].reshape(shape), similarity[keep].reshape(shape)


def _searched(queries: Floats, base: Floats, count: int) -> tuple[Places, Floats]:
    if not cpu_matmul.available() and importlib.util.find_spec("faiss"):
        return _by_faiss(queries, base, count)
    return _by_torch(queries, base, count)


def _by_torch(queries: Floats, base: Floats, count: int) -> tuple[Places, Floats]:
    index = np.empty((len(queries), count), np.int64)
    similarity = np.empty((len(queries), count), np.float32)
    for rows in _slices(len(queries), _QUERIES):
        best = None
        for columns in _slices(len(base), _BASE):
            product = cpu_matmul.multiply(torch.from_numpy(queries[rows]), torch.from_numpy(base[columns]))
            values, places = _top(product, min(count, product.shape[1]))
            best = _merged(best, (values, places + columns.start), count)
        assert best is not None
        similarity[rows], index[rows] = (part.numpy() for part in best)
    return index, similarity


def _slices(length: int, step: int) -> Iterator[slice]:
    return (slice(first, min(first + step, length)) for first in range(0, length, step))


Best = tuple[torch.Tensor, torch.Tensor]


def _top(product: torch.Tensor, count: int) -> Best:
    """Values and columns of the highest of each row, highest first, ties by the lower column."""
    values, places = product.topk(min(count + 1, product.shape[1]), dim=1)
    if values.shape[1] > count:  # else all columns are taken, and there is no choice among equal ones
        # `topk` keeps any of equal values. One more than is wanted is asked for, which shows where it had a choice.
        unsure = (values[:, count - 1] == values[:, count]).nonzero()[:, 0]
        values, places = values[:, :count], places[:, :count].clone()
        if len(unsure):
            places[unsure] = _lowest(product[unsure], values[unsure, -1:], count)
    # By column first, so that the stable sort by value leaves equal ones in the order of columns.
    places = places.sort(dim=1).values
    values, order = product.gather(1, places).sort(dim=1, descending=True, stable=True)
    return values, places.gather(1, order)


def _lowest(product: torch.Tensor, last: torch.Tensor, count: int) -> torch.Tensor:
    """Columns of all that is above the last value, and of the first that are equal to it, `count` in all."""
    above, equal = product > last, product == last
    room = count - above.sum(dim=1, keepdim=True)
    taken = above | (equal & (equal.cumsum(dim=1) <= room))
    return taken.nonzero()[:, 1].reshape(-1, count)


def _merged(best: Best | None, more: Best, count: int) -> Best:
    """The highest of both; those of `best` have the lower columns."""
    if best is None:
        return more
    values, order = torch.cat([best[0], more[0]], dim=1).sort(dim=1, descending=True, stable=True)
    return values[:, :count], torch.cat([best[1], more[1]], dim=1).gather(1, order[:, :count])


def _by_faiss(queries: Floats, base: Floats, count: int) -> tuple[Places, Floats]:
    """Return what `_by_torch` does, which is asked where faiss cut among equal similarities: faiss has no rule."""
    import faiss

    flat = faiss.IndexFlatIP(base.shape[1])
    flat.add(base)
    similarity, index = flat.search(queries, min(count + 1, len(base)))
    unsure = np.zeros(len(queries), bool)
    if similarity.shape[1] > count:
        unsure = similarity[:, count - 1] == similarity[:, count]
        similarity, index = similarity[:, :count], index[:, :count]
    order = np.lexsort((index, -similarity), axis=1)
    similarity, index = np.take_along_axis(similarity, order, 1), np.take_along_axis(index, order, 1)
    if unsure.any():
        index[unsure], similarity[unsure] = _by_torch(queries[unsure], base, count)
    return index, similarity
