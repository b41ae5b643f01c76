"""Adam's metric: H = diag(v), with v the second moment that Adam keeps of each weight's gradient.

Adam's step on a gradient is gradient / (sqrt(v) + eps) (Kingma and Ba 2015, "Adam: A Method for Stochastic
Optimization"). Here both sides of the inner product are divided so: Q = grad / (sqrt(v) + eps)^2, and eps is a multiple
of the layer's mean sqrt(v). (LESS, Xia et al. 2024, divides one side.) Adam's corrections for its beginning are the
same for all weights, and are left out.

v is taken out of a checkpoint's optimizer state; or it is the mean of documents' squared gradients under the weights as
they are, which is where Adam's v goes with batches of one document and a learning rate of 0.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from dvsel.errors import UserError
from dvsel.gradients.curvature import Metric
from dvsel.gradients.layers import Layer, trained
from dvsel.gradients.low_rank import Cut, Direction
from dvsel.language.models import Model

_MOMENT = "exp_avg_sq"


@dataclass(frozen=True)
class Diagonal(Metric):
    """Diagonal curvature of a layer. moments: v, (outputs, inputs). damping: eps as a multiple of the mean sqrt(v)."""

    moments: torch.Tensor
    damping: float

    def direction(self, gradient: torch.Tensor, query: int, cut: Cut) -> Direction:  # noqa: ARG002
        roots = self.moments.double().sqrt()
        return cut.of(gradient.double() / (roots + self.damping * (float(roots.mean()) or 1.0)).square())


def stored_moments(path: str, model: Model, layers: Sequence[Layer]) -> list[torch.Tensor]:
    """v of each layer, (outputs, inputs), on the layer's device, out of an optimizer's state: the optimizer.pt of a
    checkpoint of transformers' Trainer, or `torch.save(optimizer.state_dict(), path)` of an Adam over
    `model.parameters()`.

    A state knows weights by their numbers alone. The Trainer numbers those with weight decay first; which these are
    changed with its versions, so each rule is tried, and that counts by which all shapes fit. Raises UserError where
    none does, or where the file is not such a state.
    """
    state = _read(path)
    weights = trained(model)
    for rule in _RULES:
        numbered = rule(weights)
        if _fits(state, numbered):
            places = {id(weight): place for place, (_, weight) in enumerate(numbered)}
            return [_laid_out(state[places[id(layer.module.weight)]], layer) for layer in layers]
    raise UserError(
        f"optimizer state {path}: its {len(state)} tensors are not those of the weights of model {model.card.name}; "
        "give the optimizer.pt that lies beside these weights"
    )


def _read(path: str) -> list[torch.Tensor]:
    """Second moments by the numbers of the weights."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        cause = str(error).splitlines()[0]
        raise UserError(f"optimizer state {path}: cannot be read ({cause}); give a checkpoint's optimizer.pt") from None
    weights = state.get("state") if isinstance(state, Mapping) else None
    if not isinstance(weights, Mapping) or not weights or not all(_MOMENT in one for one in weights.values()):
        raise UserError(f"optimizer state {path}: has no {_MOMENT} of each weight; give one of torch's Adam or AdamW")
    return [weights[number][_MOMENT] for number in sorted(weights)]


Named = Sequence[tuple[str, torch.Tensor]]


def _fits(state: Sequence[torch.Tensor], weights: Named) -> bool:
    return len(state) == len(weights) and all(
        one.shape == weight.shape for one, (_, weight) in zip(state, weights, strict=True)
    )


def _laid_out(moments: torch.Tensor, layer: Layer) -> torch.Tensor:
    """Return a tensor of a weight as (outputs, inputs), however the module stores it."""
    return (moments.T if layer.transposed else moments).to(layer.module.weight.device)


def _as_they_are(weights: Named) -> Named:
    return weights


def _norms_last(weights: Named) -> Named:
    """transformers from 4.46: by the names of biases and norms."""
    return _last(weights, lambda name, _: bool(_UNDECAYED.search(name.lower())))


def _biases_last(weights: Named) -> Named:
    """transformers before that, of models with norms of their own: RMS norms decay."""
    return _last(weights, lambda name, _: "bias" in name)


def _vectors_last(weights: Named) -> Named:
    return _last(weights, lambda _, weight: weight.ndim < 2)


def _last(weights: Named, belongs: Callable[[str, torch.Tensor], bool]) -> Named:
    return sorted(weights, key=lambda one: belongs(*one))


_UNDECAYED = re.compile(r"bias|layernorm|rmsnorm|(^|\.)norm(\.|$)|_norm(\.|$)")
_RULES: tuple[Callable[[Named], Named], ...] = (_as_they_are, _norms_last, _biases_last, _vectors_last)
