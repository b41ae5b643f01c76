"""Self-influence: the effect of training on a document on its own loss, to first order.

    score = <gradient of the document's loss, H^-1 gradient of the document's loss>

(Koh and Liang 2017, "Understanding Black-box Predictions via Influence Functions"; for pretraining data: PRESENCE,
Thakkar et al. 2023, "Self-Influence Guided Data Reweighting for Language Model Pre-training"). H is the curvature, from
a sample of the pool. A high score is a document that no other helps to learn: a rare or hard one, or noise.

The fitted scorer holds the matrices that whiten gradients, one of float32 for each layer and side. A layer of m x n has
m^2 + n^2 numbers (and m n more with EK-FAC): as a rule more than the model's own weights.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dvsel.errors import UserError
from dvsel.gradients import fitted_directions, fitted_norms
from dvsel.gradients.options import CurvatureOptions
from dvsel.interface.scorer import Scorer
from dvsel.language import Documents
from dvsel.options import option
from dvsel.schema import ArraySpec, Schema

if TYPE_CHECKING:
    import torch

    from dvsel.documents.columns import Batch
    from dvsel.gradients.gradient_pass import GradientMeter
    from dvsel.gradients.layers import Layer
    from dvsel.gradients.norms import Whitening

_PARTS = ("inputs", "outputs", "damped")


@dataclass(frozen=True)
class SelfInfluence(CurvatureOptions, Scorer):
    """Prefer documents that lower their own loss most; a high score is a rare or hard document, or noise.

    The score is the squared norm of the gradient, preconditioned.
    """

    group: ClassVar[str] = "gradients"
    usage: ClassVar[tuple[str, ...]] = ("--pool pool/ --model models/pythia-160m --layers last",)
    uses_all_cores: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-2

    layers: str = option("all", "all, upper-half or last of the model's blocks, or names, as *.mlp.*,*.o_proj")

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> FittedSelfInfluence:  # noqa: ARG002
        """Fit the whitening of each layer on a sample of the pool."""
        self.check()
        from dvsel.gradients.layers import choose

        model = self.load(self.model)
        meter = self.meter(model, [layer.name for layer in choose(model, self.layers)])
        arrays, report = fitted_norms.fit(self, meter.layers)
        if self.takes_pool:
            sample = self.sample(pool, self.factor_documents)
            arrays |= self._whitenings(meter, sample)
            report["documents for the curvature"] = len(sample)
        fitted = FittedSelfInfluence(self, arrays)
        fitted.report = report
        return fitted

    def _whitenings(self, meter: GradientMeter, sample: Documents) -> fitted_directions.Arrays:
        """Return the whitenings of all layers as arrays."""
        from dvsel.gradients.norms import ekfac, kfac
        from dvsel.gradients.target_gradient import Curvature, portions

        whitenings: dict[str, Callable[[Any], Whitening]] = {"kfac": kfac, "ekfac": ekfac}
        curvature, whitening = Curvature(self.preconditioner, self.damping), whitenings[self.preconditioner]
        parts = (curvature.metrics(meter.of(part), sample, []) for part in portions(meter.layers))
        arrays: fitted_directions.Arrays = {}
        for number, metric in enumerate(itertools.chain.from_iterable(parts)):
            arrays |= _as_arrays(number, whitening(metric))
        return arrays


def _as_arrays(number: int, whitening: Whitening) -> fitted_directions.Arrays:
    parts = {f"{name}.{number}": getattr(whitening, name) for name in _PARTS}
    return {
        name: np.ascontiguousarray(part.cpu().numpy(), np.float32) for name, part in parts.items() if part is not None
    }


class FittedSelfInfluence(fitted_norms.FittedCheckpoints):
    """A fitted self-influence scorer.

    arrays: besides those of FittedCheckpoints, of layer N inputs.N float32 (inputs, inputs), outputs.N (outputs,
    outputs), each of them a vector where it is diagonal; and for EK-FAC damped.N (outputs, inputs). A missing one is
    the identity.
    """

    @classmethod
    def schema(cls, scorer: Any) -> Schema:
        """Return the whitenings too, which take gigabytes and so are not read through for NaN."""
        sides = {
            f"{side}.{{layers}}": ArraySpec(
                "float32", (f"{side}.{{layers}}",) * 2, finite=False, optional=True, or_shape=(f"{side}.{{layers}}",)
            )
            for side in ("inputs", "outputs")
        }
        damped = ArraySpec("float32", ("outputs.{layers}", "inputs.{layers}"), finite=False, optional=True)
        return {**super().schema(scorer), **sides, "damped.{layers}": damped}

    @functools.cached_property
    def _whitenings(self) -> list[Whitening]:
        from dvsel.gradients.norms import Whitening

        (meter,) = self.meters
        return [
            Whitening(*(self._part(name, number, layer) for name in _PARTS))
            for number, layer in enumerate(meter.layers)
        ]

    def _part(self, name: str, number: int, layer: Layer) -> torch.Tensor | None:
        """Return one matrix of a whitening, on the weight's device, in the precision of sums.

        Raises UserError for one of another size than the layer.
        """
        import torch

        from dvsel.gradients.capture import wide

        part = self.arrays.get(f"{name}.{number}")
        if part is None:
            return None
        lengths = {"inputs": layer.inputs, "outputs": layer.outputs}
        wanted = (layer.outputs, layer.inputs) if name == "damped" else (lengths[name],) * part.ndim
        if part.shape != wanted or (layer.embeds and name == "inputs" and part.ndim > 1):
            raise UserError(
                f"layer {layer.name}: takes {name} of shape {wanted}, and the fitted file has {part.shape}; fit again"
            )
        return torch.from_numpy(np.array(part)).to(wide(layer.module.weight[:0]))

    def values(self, meter: GradientMeter, documents: Documents) -> fitted_norms.Floats:
        """Return the squared norms, float64 (n,)."""
        from dvsel.gradients.norms import Squares

        squares = Squares(self._whitenings, len(documents), meter.model.device)
        passed = meter.run(documents, squares, self.options.reduction)
        fitted_directions.warn_non_finite(passed, documents)
        return np.where(passed.scored, squares.total.cpu().numpy(), np.nan)


SelfInfluence.fitted = FittedSelfInfluence
