"""Squared norms of documents' gradients, as they are or as a curvature measures them.

<G, H^-1 G> is the squared norm of G where H is the identity. K-FAC: S^-1/2 G A^-1/2, so inputs and output gradients are
multiplied by matrices as they come. EK-FAC: G in the eigenbasis of S and A, and each square over its own eigenvalue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dvsel.gradients.capture import wide
from dvsel.gradients.compare import add_squares
from dvsel.gradients.curvature import Kronecker, Spectrum
from dvsel.gradients.layer_inputs import Inputs, OneHot
from dvsel.gradients.moments import ByDocument

Side = torch.Tensor | None


@dataclass(frozen=True)
class Whitening:
    """Factors of a layer's inputs and output gradients, as rows; and divisors of their products' squares.

    inputs: (inputs, inputs), or the diagonal of one, (inputs,), or None for the identity. outputs: likewise. damped:
    (outputs, inputs), or None for ones.
    """

    inputs: Side = None
    outputs: Side = None
    damped: torch.Tensor | None = None


def kfac(metric: Kronecker) -> Whitening:
    """H^-1/2 of K-FAC, up to a rotation, which norms do not see."""
    return Whitening(_whitened(metric.inputs), _whitened(metric.outputs))


def ekfac(metric: Kronecker) -> Whitening:
    """The eigenbasis of EK-FAC, and its damped eigenvalues."""
    return Whitening(metric.inputs.basis, metric.outputs.basis, metric.damped)


def _whitened(spectrum: Spectrum) -> torch.Tensor:
    # The rotation back into the model's coordinates is left out: norms are the same without it.
    shares = spectrum.values.rsqrt()
    return shares if spectrum.basis is None else spectrum.basis * shares


class Squares(ByDocument):
    """<G, H^-1 G> of `documents` documents, over all layers.

    whitenings: one a layer, in float32, or float64 for a model in float64; what is multiplied is taken to that
    precision. total: float64 (documents,).
    """

    def __init__(self, whitenings: Sequence[Whitening], documents: int, device: str) -> None:
        super().__init__()
        self.whitenings = whitenings
        self.total = torch.zeros(documents, dtype=torch.float64, device=device)

    def reset(self) -> None:
        super().reset()
        self.total.zero_()

    def keep(self, layer: int, inputs: Inputs) -> tuple[Inputs, torch.Tensor | None]:
        """The inputs, whitened; and factors (rows, length, 1) still to be applied, where those are token numbers."""
        side = self.whitenings[layer].inputs
        if not isinstance(inputs, OneHot):
            return _applied(side, inputs), None
        return inputs, None if side is None else side[inputs.numbers][..., None]

    def take(self, layer: int, kept: tuple[Inputs, torch.Tensor | None], slopes: torch.Tensor) -> None:
        inputs, factors = kept
        whitening = self.whitenings[layer]
        slopes = _applied(whitening.outputs, slopes)
        if factors is not None:
            slopes = slopes * factors
        if whitening.damped is None:
            add_squares(self.total, self, layer, inputs, slopes)
            return
        for document, gradient in self.gradients(layer, inputs, slopes):
            self.total[document] += (gradient.square() / whitening.damped).sum().to(self.total)


def _applied(side: Side, rows: torch.Tensor) -> torch.Tensor:
    if side is None:
        return rows
    return wide(rows) * side if side.ndim == 1 else wide(rows) @ side
