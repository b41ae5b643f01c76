"""Sums over the gradients of some documents, for fits: those of parts of the documents just add up.

All are float32, or float64 for a model in float64, on the model's device. A document's gradient is that of its loss,
the sum or the mean of its tokens'; statistics of the curvature need the sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from dvsel.gradients.capture import Collector, RowLayout, wide
from dvsel.gradients.layer_inputs import Inputs, OneHot, flat, outer, project
from dvsel.gradients.layers import Layer


class GradientSum(Collector):
    """The sum of all documents' gradients.

    total: one tensor (outputs, inputs) a layer. dtype: to sum in, by default that of the products.
    """

    adds_rows = True

    def __init__(self, layers: Sequence[Layer], dtype: torch.dtype | None = None) -> None:
        self.total = [_zeros(layer, layer.outputs, layer.inputs, dtype) for layer in layers]

    def reset(self) -> None:
        for total in self.total:
            total.zero_()

    def take(self, layer: int, kept: Inputs, slopes: torch.Tensor) -> None:
        self.total[layer] += outer(wide(slopes).flatten(0, 1), flat(kept))


WIDEST = 16384  # of a side whose second moments are held whole: 1 GB in float32


@dataclass
class Factors:
    """Second moments of a layer's inputs and of its outputs' gradients, summed over `tokens` positions.

    inputs: (inputs, inputs). outputs: (outputs, outputs). Both symmetric. Of an embedding's inputs, and of a side that
    is wider than `WIDEST`, the diagonal alone.
    """

    inputs: torch.Tensor
    outputs: torch.Tensor
    tokens: int = 0

    def __add__(self, other: Factors) -> Factors:
        return Factors(self.inputs + other.inputs, self.outputs + other.outputs, self.tokens + other.tokens)


class FactorSums(Collector):
    """The factors of K-FAC (Martens and Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate
    Curvature") with the labels that the text has, of every position that the model is fed.

    factors: one a layer. Layers that take the very same tensor, as queries, keys and values do, share that of inputs.
    """

    adds_rows = True

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = layers
        self.reset()

    def reset(self) -> None:
        self._first_user: dict[int, int] = {}
        self._inputs: dict[int, torch.Tensor] = {}
        self._outputs = [_moments(layer, layer.outputs, layer.outputs > WIDEST) for layer in self.layers]
        self._tokens = [0] * len(self.layers)

    @property
    def factors(self) -> list[Factors]:
        return [
            Factors(self._inputs_of(number), outputs, tokens)
            for number, (outputs, tokens) in enumerate(zip(self._outputs, self._tokens, strict=True))
        ]

    def begin(self, rows: RowLayout) -> None:
        super().begin(rows)
        self._last: tuple[int, Inputs] | None = None

    def keep(self, layer: int, inputs: Inputs) -> Inputs | None:
        """Return the inputs; None where the layer before took the same."""
        # Queries, keys and values read one tensor: its moments, a large part of the work, are summed once.
        if self._last is None or not _same(self._last[1], inputs):
            self._last = layer, inputs
        # The first pass decides whose sum a layer shares; later ones must agree.
        user = self._first_user.setdefault(layer, self._last[0])
        assert user == self._last[0], "a model that runs its layers in another order from pass to pass"
        return inputs if user == layer else None

    def take(self, layer: int, kept: Inputs | None, slopes: torch.Tensor) -> None:
        self._tokens[layer] += _positions(self.rows, slopes)
        _add_moments(self._outputs[layer], slopes.flatten(0, 1))
        if kept is not None:
            _add_moments(self._inputs_of(layer), flat(kept, self.rows.real))

    def _inputs_of(self, number: int) -> torch.Tensor:
        """Return the sum of inputs that the layer shares; zeros where none came yet."""
        user = self._first_user.get(number, number)
        if user not in self._inputs:
            layer = self.layers[user]
            self._inputs[user] = _moments(layer, layer.inputs, layer.embeds or layer.inputs > WIDEST)
        return self._inputs[user]


class ByDocument(Collector):
    """A collector that needs each document's gradient by itself; those of few are held at once."""

    whole_documents = True

    def __init__(self) -> None:
        self._parts: dict[int, torch.Tensor] = {}
        self._document = -1

    def reset(self) -> None:
        self._parts.clear()

    def begin(self, rows: RowLayout) -> None:
        super().begin(rows)
        if rows.pieces[0].document != self._document:
            self._parts.clear()  # of a document that was left unfinished, for losses that are NaN or infinite
            self._document = rows.pieces[0].document

    def gradients(self, layer: int, inputs: Inputs, slopes: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield document and gradient (outputs, inputs), of the documents that are complete with these rows."""
        slopes = wide(slopes)
        if not self.rows.part:
            for document, mine, theirs in self.rows.split(inputs, slopes):
                yield document, outer(theirs, mine)
            return
        part = outer(slopes.flatten(0, 1), flat(inputs))
        # The square of a document's gradient is not the sum of its windows' squares: the windows are added up first.
        self._parts[layer] = self._parts[layer] + part if layer in self._parts else part
        if self.rows.ends:
            yield self._document, self._parts.pop(layer)


Basis = torch.Tensor | None


class SquareSums(ByDocument):
    """The eigenvalues of EK-FAC (George et al. 2018, "Fast Approximate Natural Gradient Descent in a Kronecker-factored
    Eigenbasis"): squared gradients of documents in the eigenbasis of K-FAC, summed over documents.

    bases: of each layer's outputs and inputs, eigenvectors in columns; None: the basis that it has. total: (outputs,
    inputs) a layer. tokens: positions that the model was fed. `total / tokens` estimates what K-FAC has as products of
    eigenvalues, and equals their expectation where positions are independent.
    """

    adds_rows = True

    def __init__(self, layers: Sequence[Layer], bases: Sequence[tuple[Basis, Basis]]) -> None:
        super().__init__()
        self.layers, self.bases = layers, bases
        self.reset()

    def reset(self) -> None:
        super().reset()
        sides = [
            (layer.outputs if left is None else left.shape[1], layer.inputs if right is None else right.shape[1])
            for layer, (left, right) in zip(self.layers, self.bases, strict=True)
        ]
        self.total = [_zeros(layer, *side) for layer, side in zip(self.layers, sides, strict=True)]
        self.tokens = [0] * len(self.layers)

    def keep(self, layer: int, inputs: Inputs) -> Inputs:
        basis = self.bases[layer][1]
        if basis is None:
            return inputs
        # Eigenvectors of the smallest eigenvalues would drown in bfloat16's rounding of the largest.
        with torch.autocast(basis.device.type, enabled=False):
            return project(inputs if isinstance(inputs, OneHot) else wide(inputs), basis)

    def take(self, layer: int, kept: Inputs, slopes: torch.Tensor) -> None:
        self.tokens[layer] += _positions(self.rows, slopes)
        basis = self.bases[layer][0]
        for _, gradient in self.gradients(layer, kept, slopes if basis is None else wide(slopes) @ basis):
            self.total[layer].addcmul_(gradient, gradient)


def _zeros(layer: Layer, rows: int, columns: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    weight = layer.module.weight
    sums = torch.float64 if weight.dtype == torch.float64 else torch.float32
    return torch.zeros(rows, columns, dtype=dtype or sums, device=weight.device)


def _moments(layer: Layer, width: int, diagonal: bool) -> torch.Tensor:
    return _zeros(layer, width, 1)[:, 0] if diagonal else _zeros(layer, width, width)


def _add_moments(total: torch.Tensor, rows: Inputs) -> None:
    """Add the sum of x x^T over rows (positions, width), or of its diagonal."""
    if isinstance(rows, OneHot):
        total += torch.bincount(rows.numbers, minlength=rows.width)
    elif total.ndim == 1:
        total += wide(rows).square().sum(0)
    else:
        total += outer(wide(rows), rows)


def _positions(rows: RowLayout, slopes: torch.Tensor) -> int:
    """Positions that a layer was fed: one a row where it sees what was pooled."""
    return rows.positions if slopes.shape[1] == rows.real.shape[1] else len(slopes)


def _same(one: Inputs, other: Inputs) -> bool:
    """Return whether they are the same memory; both are held, so it cannot have been used again meanwhile."""
    if isinstance(one, OneHot) or isinstance(other, OneHot):
        return False
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()
