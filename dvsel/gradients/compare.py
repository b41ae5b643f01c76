"""The comparison of documents' gradients with directions, in the pass that makes them.

dot: <G, Q>, summed over layers. cosine: that over |G| |Q|, of all layers together.

|G|^2 of a document is sum over t and t' of (x_t . x_t') (g_t . g_t'), or G is made whole, for one document at a
time, where that is less work: for documents that are long beside the layer's width, or longer than the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from dvsel.gradients.capture import Collector, RowLayout, wide
from dvsel.gradients.layer_inputs import Inputs, OneHot, overlaps, project
from dvsel.gradients.low_rank import Direction
from dvsel.gradients.moments import ByDocument


class Comparison(Protocol):
    """Comparison of one layer with the direction of each group."""

    def keep(self, inputs: Inputs) -> Inputs:
        """Return what is needed of inputs (rows, length, inputs)."""

    def by_position(self, kept: Any, slopes: torch.Tensor) -> torch.Tensor:
        """g_t^T Q x_t, (rows, length), summed over groups."""

    def products(self, kept: Any, slopes: torch.Tensor, rows: RowLayout) -> torch.Tensor:
        """<G, Q> of each piece of the rows with each group's Q: (pieces, groups)."""


class Thin:
    """Comparison with directions of low rank, side by side."""

    def __init__(self, directions: Sequence[Direction]) -> None:
        self.left = torch.cat([one.left for one in directions], 1)
        self.right = torch.cat([one.right for one in directions], 1)
        self.ranks = [one.rank for one in directions]

    def keep(self, inputs: Inputs) -> torch.Tensor:
        return project(inputs, self.right)

    def by_position(self, kept: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        return self._terms(kept, slopes).sum(2)

    def products(self, kept: torch.Tensor, slopes: torch.Tensor, rows: RowLayout) -> torch.Tensor:
        sums = rows.sums(self._terms(kept, slopes))
        return torch.stack([part.sum(1) for part in torch.split(sums, self.ranks, 1)], 1)

    def _terms(self, kept: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        """The products of L^T g_t and R^T x_t, (rows, length, ranks of all groups)."""
        return wide(project(slopes, self.left)) * wide(kept)


class Whole:
    """Comparison with whole matrices, for ranks at which thin products are more work."""

    def __init__(self, directions: Sequence[Direction]) -> None:
        self.matrices = [one.left @ one.right.T for one in directions]

    def keep(self, inputs: Inputs) -> Inputs:
        return inputs

    def products(self, kept: Inputs, slopes: torch.Tensor, rows: RowLayout) -> torch.Tensor:
        return torch.cat([rows.sums(_terms(kept, slopes, matrix)[:, :, None]) for matrix in self.matrices], 1)

    def by_position(self, kept: Inputs, slopes: torch.Tensor) -> torch.Tensor:
        return torch.stack([_terms(kept, slopes, matrix) for matrix in self.matrices]).sum(0)


def _terms(kept: Inputs, slopes: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """g_t^T Q x_t, (rows, length)."""
    if isinstance(kept, OneHot):  # Q x_t is a row of Q^T, looked up instead of multiplied
        return (wide(slopes) * wide(project(kept, matrix.T))).sum(2)
    return (wide(project(slopes, matrix)) * wide(kept)).sum(2)


def comparison(directions: Sequence[Direction]) -> Comparison:
    """Make the cheaper of the two for a layer's directions, one for each group."""
    outputs, inputs = len(directions[0].left), len(directions[0].right)
    thin = sum(one.rank for one in directions) * (outputs + inputs)
    return Thin(directions) if thin < len(directions) * outputs * inputs else Whole(directions)


class Scores(ByDocument):
    """The scores of `documents` documents.

    comparisons: one a layer. products: float64 (documents, groups), the sums so far. squares: float64 (documents,),
    |G|^2 where `norms` are wanted, else None.
    """

    def __init__(
        self, comparisons: Sequence[Comparison], documents: int, groups: int, device: str, norms: bool = False
    ) -> None:
        super().__init__()
        self.comparisons = comparisons
        self.whole_documents = norms
        # Products of many layers and windows largely cancel: in float32 their sum would depend on the order of passes.
        self.products = torch.zeros(documents, groups, dtype=torch.float64, device=device)
        self.squares = torch.zeros(documents, dtype=torch.float64, device=device) if norms else None

    def reset(self) -> None:
        super().reset()
        self.products.zero_()
        if self.squares is not None:
            self.squares.zero_()

    def keep(self, layer: int, inputs: Inputs) -> tuple[Inputs, Inputs | None]:
        return self.comparisons[layer].keep(inputs), None if self.squares is None else inputs

    def take(self, layer: int, kept: tuple[Inputs, Inputs | None], slopes: torch.Tensor) -> None:
        part, inputs = kept
        found = self.comparisons[layer].products(part, slopes, self.rows)
        self.products.index_add_(0, self.rows.owners, found.to(self.products))
        if self.squares is not None and inputs is not None:
            add_squares(self.squares, self, layer, inputs, slopes)

    def cosines(self, norms: torch.Tensor) -> torch.Tensor:
        """Products over the documents' norms and those of the groups' directions, `norms` (groups,)."""
        assert self.squares is not None
        return self.products / (self.squares.sqrt()[:, None] * norms.to(self.products))


class PositionScores(Collector):
    """Parts of each position, by its inputs and output gradients, in a document's score with one group: per-token
    influence (Grosse et al. 2023, "Studying Large Language Model Generalization with Influence Functions", 5.3).

    totals: float64, one array for each document, of its `lengths`; they sum to the document's score.
    """

    def __init__(self, comparisons: Sequence[Comparison], lengths: Sequence[int]) -> None:
        self.comparisons, self.lengths = comparisons, lengths
        self.reset()

    def reset(self) -> None:
        self.totals = [torch.zeros(length, dtype=torch.float64) for length in self.lengths]

    def keep(self, layer: int, inputs: Inputs) -> Inputs:
        return self.comparisons[layer].keep(inputs)

    def take(self, layer: int, kept: Inputs, slopes: torch.Tensor) -> None:
        found = self.comparisons[layer].by_position(kept, slopes).double().cpu()
        for one in self.rows.pieces:
            mine = found[one.row, one.begin : one.end]
            self.totals[one.document][one.at : one.at + len(mine)] += mine


def add_squares(squares: torch.Tensor, collector: ByDocument, layer: int, inputs: Inputs, slopes: torch.Tensor) -> None:
    """Add |G|^2 of a layer to each document's place in `squares`, float64 (documents,)."""
    rows, (length, height), width = collector.rows, slopes.shape[1:], inputs.shape[2]
    # Multiplications a position: length * (width + height) for the products of all pairs, width * height for G whole.
    if not rows.part and rows.piece is None and length * (width + height) < width * height:
        slopes = wide(slopes)
        found = (overlaps(inputs, slopes.dtype) * (slopes @ slopes.mT)).sum((1, 2))
        squares.index_add_(0, rows.owners, found.to(squares))
        return
    for document, gradient in collector.gradients(layer, inputs, slopes):
        squares[document] += gradient.square().sum().to(squares)


def norms(directions: Sequence[Sequence[Direction]]) -> torch.Tensor:
    """|Q| of each group over all layers, float64 (groups,); directions: by layer, then by group."""
    squares = [
        [float(((one.left.T @ one.left) * (one.right.T @ one.right)).double().sum()) for one in layer]
        for layer in directions
    ]
    return torch.tensor(squares, dtype=torch.float64).sum(0).sqrt()
