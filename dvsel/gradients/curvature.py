"""The curvature that a target's gradient is divided by, one matrix a layer, in the basis where it is diagonal.

K-FAC: H = S x A, the Kronecker product of the second moments of output gradients, S = E[g g^T], and of inputs,
A = E[x x^T]; then H^-1 G = (S + a I)^-1 G (A + b I)^-1. Damping a and b are one share of the mean eigenvalue each.
EK-FAC: in the same eigenbasis, E[(U_S^T G U_A)^2] stands for the products of eigenvalues, and the damping is that share
of their mean. Here, and where that is from, a document's G is of the sum of its token losses; E is over documents,
divided by tokens a document, which makes it the same size as K-FAC's.

Q = H^-1 grad is cut where H is the identity: S^1/2 Q A^1/2, for K-FAC S^-1/2 grad A^-1/2, is cut by its singular
values, which is the best approximation as H measures it; then both sides are mapped back, which keeps the rank. For
EK-FAC, S and A are those of K-FAC, since its own H has no such map.

All is float64, since the smallest eigenvalues count most.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dvsel.errors import Notice
from dvsel.gradients.layers import Layer
from dvsel.gradients.low_rank import Cut, Direction
from dvsel.gradients.moments import Factors

_ROUNDING = 1e-6  # of float32 sums, beside the largest eigenvalue


@dataclass(frozen=True)
class Spectrum:
    """A symmetric matrix by its eigenvectors, in columns of `basis`, and damped eigenvalues, float64.

    basis: None where the matrix is diagonal. fragile: whether the damping is below what rounding leaves of eigenvalues
    that are 0.
    """

    values: torch.Tensor
    basis: torch.Tensor | None
    fragile: bool = False

    def into(self, columns: torch.Tensor) -> torch.Tensor:
        """Columns, float64 (width, n), in the basis."""
        return columns if self.basis is None else self.basis.T @ columns

    def out_of(self, columns: torch.Tensor) -> torch.Tensor:
        """Turn back what `into` gave."""
        return columns if self.basis is None else self.basis @ columns


class Metric:
    """Curvature of one layer. This one is none: H is the identity."""

    def direction(self, gradient: torch.Tensor, query: int, cut: Cut) -> Direction:  # noqa: ARG002
        """H^-1 times the gradient (outputs, inputs) of a query, whose number it is, cut as this metric sees it best."""
        return cut.of(gradient)


@dataclass(frozen=True)
class Kronecker(Metric):
    """K-FAC's or EK-FAC's. damped: (outputs, inputs), H's damped eigenvalues in the basis of the two spectra."""

    inputs: Spectrum
    outputs: Spectrum
    damped: torch.Tensor

    def direction(self, gradient: torch.Tensor, query: int, cut: Cut) -> Direction:  # noqa: ARG002
        # Cut where H is the identity: there the cut leaves out what changes the documents' scores least, on average.
        found = cut.of(self.whitened(gradient))
        return Direction(*self.restored(found.left, found.right), found.energy)

    def whitened(self, gradient: torch.Tensor) -> torch.Tensor:
        """S^1/2 H^-1 G A^1/2 for a gradient (outputs, inputs), float64, in the basis of the two spectra."""
        rotated = self.inputs.into(self.outputs.into(gradient.double()).T).T
        return self.outputs.values.sqrt()[:, None] * (rotated / self.damped) * self.inputs.values.sqrt()

    def restored(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """S^-1/2 left and A^-1/2 right, out of that basis; left: (outputs, rank), right: (inputs, rank)."""
        return (
            self.outputs.out_of(left / self.outputs.values.sqrt()[:, None]),
            self.inputs.out_of(right / self.inputs.values.sqrt()[:, None]),
        )


def kfac(factors: Factors, damping: float) -> Kronecker:
    """K-FAC's, with `damping` times the mean eigenvalue added to each factor's."""
    inputs, outputs = (
        spectrum(moments / max(factors.tokens, 1), damping) for moments in (factors.inputs, factors.outputs)
    )
    return Kronecker(inputs, outputs, outputs.values[:, None] * inputs.values)


def ekfac(metric: Kronecker, squares: torch.Tensor, tokens: int, damping: float) -> Kronecker:
    """K-FAC's with its eigenvalues corrected; squares: (outputs, inputs), of `moments.SquareSums`."""
    values = squares.double() / max(tokens, 1)
    mean = float(values.mean()) or 1.0
    return Kronecker(metric.inputs, metric.outputs, values + damping * mean)


def spectrum(moments: torch.Tensor, damping: float) -> Spectrum:
    """Decompose a symmetric matrix, or its diagonal; negative eigenvalues, made by rounding, are taken for 0."""
    values, basis = (moments.double(), None) if moments.ndim == 1 else torch.linalg.eigh(moments.double())
    values = values.clamp(min=0)
    # Where all is 0, as for a layer that saw nothing, any damping does: 1 keeps it from dividing by 0.
    added = damping * (float(values.mean()) or 1.0)
    return Spectrum(values + added, basis, added < _ROUNDING * float(values.max()))


def warn(layers: Sequence[Layer], metrics: Sequence[Kronecker], tokens: int) -> None:
    """Tell where the sample or the damping is too small for the curvature to be trusted."""
    widest = max(max(metric.damped.shape) for metric in metrics)
    if tokens < widest:
        warnings.warn(
            Notice(
                f"curvature: {tokens} tokens of the pool for layers up to {widest} wide; directions that they "
                "do not show are damped only; give a larger sample with --sample-size and --factor-documents"
            ),
            stacklevel=2,
        )
    fragile = [
        layer.name
        for layer, metric in zip(layers, metrics, strict=True)
        if metric.inputs.fragile or metric.outputs.fragile
    ]
    if fragile:
        warnings.warn(
            Notice(
                f"curvature: the damping is below the rounding of {fragile[0]}"
                f"{f' and {len(fragile) - 1} other layers' if len(fragile) > 1 else ''}; scores follow noise there; "
                "raise --damping, of which 0.1 is the default"
            ),
            stacklevel=2,
        )
