"""Gradients seen through bases of a layer's outputs and inputs, and preconditioners of what is seen there.

A document's gradient G, (outputs, inputs), is seen as G~ = L^T G R with orthonormal columns in L, (outputs, rank), and
R, (inputs, rank): LoGra's projection (Choe et al. 2024, "What is Your Data Worth to GPT?", section 3), which costs two
thin products a token. What is preconditioned there, q~, is the direction L q~ R^T, of that rank.

The bases are random, or the leading eigenvectors of K-FAC's factors of a sample (LoGra-PCA). Random ones come from the
layer's name alone and from integer and elementwise arithmetic, in an order that is fixed: the same bytes everywhere.

Fisher, as LoGra has it: F = mean over documents of vec(G~) vec(G~)^T, and
q~ = (F + damping * mean eigenvalue * I)^-1 vec(G~_T).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dvsel.errors import Notice
from dvsel.gradients.capture import Collector, RowLayout, wide
from dvsel.gradients.curvature import Metric, spectrum
from dvsel.gradients.layer_inputs import Inputs, OneHot, outer, project
from dvsel.gradients.layers import Layer
from dvsel.gradients.low_rank import Cut, Direction
from dvsel.gradients.moments import Factors

Floats = npt.NDArray[np.float64]

_SUMMED = 8  # bytes whose sum is nearly normal


@dataclass(frozen=True)
class Bases:
    """left: (outputs, rank). right: (inputs, rank). Orthonormal columns, float64; fewer where a side is narrower."""

    left: torch.Tensor
    right: torch.Tensor

    @property
    def size(self) -> int:
        """Numbers that a gradient has there."""
        return self.left.shape[1] * self.right.shape[1]

    def seen(self, gradient: torch.Tensor) -> torch.Tensor:
        """L^T G R, float64, of G (outputs, inputs)."""
        return self.left.T @ gradient.double() @ self.right

    def direction(self, found: torch.Tensor, gradient: torch.Tensor) -> Direction:
        """L q~ R^T as a direction; found: q~, as large as what is `seen`. gradient: (outputs, inputs), whose share that
        the bases show is the direction's energy.
        """
        whole = float(gradient.double().square().sum())
        energy = float(self.seen(gradient).square().sum()) / whole if whole else 1.0
        return Direction(self.left @ found.view(self.left.shape[1], -1), self.right, energy)

    def factors(self, factors: Factors) -> Factors:
        """K-FAC's factors of gradients that are seen through the bases."""
        return Factors(_between(self.right, factors.inputs), _between(self.left, factors.outputs), factors.tokens)


def _between(basis: torch.Tensor, moments: torch.Tensor) -> torch.Tensor:
    """P^T M P for a symmetric matrix or its diagonal."""
    moments = moments.double()
    return basis.T @ (moments @ basis if moments.ndim == 2 else moments[:, None] * basis)


def random_bases(layer: Layer, rank: int) -> Bases:
    """Bases that the layer's name tells."""
    left, right = (
        torch.from_numpy(_orthonormal(f"{layer.name} {side}", width, rank)).to(layer.module.weight.device)
        for side, width in (("outputs", layer.outputs), ("inputs", layer.inputs))
    )
    return Bases(left, right)


def _orthonormal(name: str, width: int, rank: int) -> Floats:
    """Columns in random directions, each less its part along those before it; all of the space where it is no wider.

    The columns begin as integers, whose products are exact in any order; the rest is elementwise.
    """
    if width <= rank:
        return np.eye(width)
    # Sums of bytes of a hash are near enough to normal, and the same on every machine, which no generator promises.
    drawn = np.frombuffer(hashlib.shake_256(name.encode()).digest(rank * width * _SUMMED), np.uint8)
    rows: Floats = 2.0 * drawn.reshape(rank, width, _SUMMED).sum(2, dtype=np.int64) - (255 * _SUMMED - 1)
    # Exact: integers far below 2^53, whatever the order in which a library adds them up.
    products = rows @ rows.T
    for number in range(rank):  # Cholesky's factors of the products are the parts
        parts = products[number] / np.sqrt(products[number, number])
        rows[number] /= parts[number]
        rows[number + 1 :] -= parts[number + 1 :, None] * rows[number]
        products -= parts[:, None] * parts
    return np.ascontiguousarray(rows.T)


def pca_bases(factors: Factors, rank: int) -> Bases:
    """Return the leading eigenvectors of a layer's factors."""
    return Bases(_leading(factors.outputs, rank), _leading(factors.inputs, rank))


def _leading(moments: torch.Tensor, rank: int) -> torch.Tensor:
    """Eigenvectors of the largest eigenvalues, in columns, of a symmetric matrix or its diagonal."""
    found = spectrum(moments, 0.0)
    order = found.values.argsort(descending=True)[:rank]
    if found.basis is not None:
        return found.basis[:, order]
    units = torch.zeros(len(moments), len(order), dtype=torch.float64, device=moments.device)
    units[order, torch.arange(len(order))] = 1.0
    return units


class ProjectedGradients(Collector):
    """G~ of each document, laid out in a row.

    blocks: one (documents, `Bases.size`) a layer, float32, or float64 for a model in float64.
    """

    def __init__(self, layers: Sequence[Layer], bases: Sequence[Bases], documents: int) -> None:
        self.blocks, self._sides = [], []
        for layer, one in zip(layers, bases, strict=True):
            dtype = wide(layer.module.weight[:0]).dtype
            self._sides.append((one.left.to(dtype), one.right.to(dtype)))
            self.blocks.append(torch.zeros(documents, one.size, dtype=dtype, device=one.left.device))

    def reset(self) -> None:
        for block in self.blocks:
            block.zero_()

    def keep(self, layer: int, inputs: Inputs) -> torch.Tensor:
        basis = self._sides[layer][1]
        with torch.autocast(basis.device.type, enabled=False):
            return project(inputs if isinstance(inputs, OneHot) else wide(inputs), basis)

    def take(self, layer: int, kept: torch.Tensor, slopes: torch.Tensor) -> None:
        found = _by_piece(self.rows, kept, wide(slopes) @ self._sides[layer][0])
        self.blocks[layer].index_add_(0, self.rows.owners.to(found.device), found.flatten(1))


def _by_piece(rows: RowLayout, inputs: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """Return sum_t g_t x_t^T of each piece of the rows: (pieces, slopes' width, inputs' width)."""
    if rows.piece is None:
        return slopes.mT @ inputs
    return torch.stack([outer(theirs, mine) for _, mine, theirs in rows.split(inputs, slopes)])


@dataclass(frozen=True)
class Projected(Metric):
    """A metric of what is seen through the bases, whose number of columns is the rank, whatever the cut."""

    bases: Bases
    metric: Metric

    def direction(self, gradient: torch.Tensor, query: int, cut: Cut) -> Direction:  # noqa: ARG002
        found = self.metric.direction(self.bases.seen(gradient), query, Cut(0))
        return self.bases.direction(found.left @ found.right.T, gradient)


@dataclass(frozen=True)
class Fisher(Metric):
    """Projected Fisher matrix of one layer. features: (documents, outputs * inputs), of those documents that count."""

    features: torch.Tensor
    damping: float

    def direction(self, gradient: torch.Tensor, query: int, cut: Cut) -> Direction:  # noqa: ARG002
        return cut.of(solved(self.features, gradient.flatten(), self.damping).view(gradient.shape))


def solved(features: torch.Tensor, query: torch.Tensor, damping: float) -> torch.Tensor:
    """Return (F + damping * mean eigenvalue * I)^-1 query, float64 (width,), for F = features^T features / documents.

    features: (documents, width). The matrix that is solved is documents or width wide, whichever is less (the
    identity of Woodbury).
    """
    rows, query = features.double(), query.double()
    count, width = rows.shape
    # The mean eigenvalue is the trace over the width, and the trace is the mean squared length of a row.
    added = damping * (float(rows.square().sum()) / (count * width) or 1.0)
    if width <= count:
        return _solved(rows.T @ rows / count, added, query)
    return (query - rows.T @ _solved(rows @ rows.T, count * added, rows @ query)) / added


def _solved(matrix: torch.Tensor, added: float, query: torch.Tensor) -> torch.Tensor:
    """(matrix + added * I)^-1 query, for a matrix without negative eigenvalues."""
    matrix.diagonal().add_(added)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if not int(failed):
        return torch.cholesky_solve(query[:, None], factor)[:, 0]
    values, vectors = torch.linalg.eigh(matrix)  # what is added is below rounding
    solution: torch.Tensor = vectors @ ((vectors.T @ query) / values.clamp(min=added))
    return solution


def warn(documents: int, width: int, option: str = "--rank") -> None:
    """Tell where a sample is too small for a matrix of features of this width, which the option sets."""
    if documents < width:
        warnings.warn(
            Notice(
                f"curvature: {documents} documents of the pool for a matrix of {width} features; directions that they "
                "do not show are damped only; give a larger sample with --sample-size and --factor-documents, or a "
                f"lower {option}"
            ),
            stacklevel=2,
        )
