"""Mirrored influence: how much a document's loss falls when the model takes a step on the target.

    score = (loss of the document before the step - loss after it) / the same of the target

(Forward-INF: Ko et al. 2024, "The Mirrored Influence Hypothesis: Efficient Data Influence Estimation by Harnessing
Forward Passes"). To first order, training on a document does as much for the target as training on the target does for
the document; the latter takes one step, and then two forward passes a document. The step is a preconditioned one,
W - size * H^-1 gradient of the target's loss, cut to a low rank, as for influence; for small steps the score is that of
influence.

The fitted scorer holds the steps, of low rank, the model's name and a digest of the model's files, no weights.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from dvsel.errors import Notice, UserError
from dvsel.gradients import fitted_directions
from dvsel.gradients.options import UNSCORED, CurvatureOptions, TargetOptions
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.language import PRECISIONS, Documents
from dvsel.options import option, unless
from dvsel.progress import parts
from dvsel.schema import GROUPS, ArraySpec, Names, Schema, packed, unpacked

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch
    from dvsel.gradients.gradient_pass import GradientMeter
    from dvsel.gradients.low_rank import Direction
    from dvsel.gradients.target_steps import Walk

_COARSE = 0.05  # share of a step's length that rounding may take


@dataclass(frozen=True)
class Mirror(CurvatureOptions, TargetOptions, Scorer):
    """Prefer documents whose own loss falls when the model takes a step on the target.

    The score is that fall, by forward passes alone; 1 is what the target's own documents have on average.
    """

    group: ClassVar[str] = "gradients"
    takes_target: ClassVar[bool] = True
    usage: ClassVar[tuple[str, ...]] = ("--pool pool/ --target target.jsonl --model models/pythia-160m",)
    uses_all_cores: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-2

    precision: str = option(
        "fp32", "bf16 and autocast: small differences of losses are lost; auto: bf16 on a GPU", choices=PRECISIONS
    )
    target_steps: int = option(1, "steps on the target, each from where the last one ended", minimum=1)
    fall: float = option(
        0.01,
        "share of the target's loss that all steps together take from it, at most",
        above=0,
        below=1,
        when=unless("step"),
    )
    step: float = option(0.0, "size of a step, in place of --fall; 0: found", minimum=0)

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> FittedMirror:
        """Take the steps on each group of targets."""
        self.check()
        from dvsel.gradients.layers import choose

        model = self.load(self.model)
        meter = self.meter(model, [layer.name for layer in choose(model, self.wanted_layers)])
        walks, energies = self._walked(meter, self.target_groups(targets), self.sample(pool, self.factor_documents))
        counts = np.array([walk.count for walk in walks], np.float64)
        fitted = FittedMirror(self, _arrays(walks), groups=self.group_names(targets), shares=counts / counts.sum())
        fitted.report = _report(walks) | {"energy kept": energies}
        self._warn(max(fitted.report["rounding of the steps"]))
        return fitted

    def _warn(self, rounding: float) -> None:
        """Warn where the precision is too coarse for the steps."""
        if rounding > _COARSE:
            warnings.warn(
                Notice(
                    f"mirror: with --precision {self.precision}, rounding takes {rounding:.0%} from the steps, and "
                    "scores follow it; pass --precision fp32, or a larger --fall"
                ),
                stacklevel=2,
            )

    def _walked(
        self, meter: GradientMeter, groups: Mapping[str, Documents], sample: Documents
    ) -> tuple[list[Walk], str]:
        """Return each group's steps, and the energy that the cut keeps of the first."""
        from dvsel.gradients.low_rank import Cut
        from dvsel.gradients.target_gradient import Curvature, find
        from dvsel.gradients.target_steps import KeptCurvature, Walk

        curvature = (KeptCurvature if self.target_steps > 1 else Curvature)(self.preconditioner, self.damping)
        cut, share = Cut(self.wanted_rank, self.energy), self.fall / self.target_steps
        walks = [Walk(meter, texts, self.reduction, place, share, self.step) for place, texts in groups.items()]
        first = find(meter, [walk.gradient() for walk in walks], curvature, sample, cut)
        for number, walk in enumerate(walks):
            walk.step([layer[number] for layer in first.directions], first.own_scores()[number])
            walk.walk(self.target_steps - 1, curvature, sample, cut)
        energies = [one.energy for layer in first.directions for one in layer]
        return walks, f"{min(energies):.3f} to {max(energies):.3f}"


def _arrays(walks: Sequence[Walk]) -> fitted_directions.Arrays:
    """Return the arrays of `FittedMirror`."""
    meter, arrays = walks[0].meter, {}
    for number, moves in enumerate(zip(*(walk.moves for walk in walks), strict=True)):
        arrays[f"left.{number}"] = fitted_directions.side_by_side([move.left for move in moves])
        arrays[f"right.{number}"] = fitted_directions.side_by_side([move.right for move in moves])
    return arrays | {
        "ranks": np.array([[move.rank for move in walk.moves] for walk in walks], np.int32).T.copy(),
        "falls": np.array([_fall(walk) for walk in walks]),
        "layers": packed([layer.name for layer in meter.layers]),
        "digests": np.frombuffer(meter.model.card.digest, np.uint8)[None],
    }


def _fall(walk: Walk) -> float:
    """Return by how much the target's mean loss falls. Raises UserError where it does not."""
    fall = walk.losses[0] - walk.losses[-1]
    if not fall > 0:
        raise UserError(f"{walk.place}: its loss does not fall along the steps; lower --step")
    return fall


def _report(walks: Sequence[Walk]) -> dict[str, Any]:
    """Return the report: the sizes of model, target and steps."""
    meter = walks[0].meter
    return {
        "architecture": meter.model.card.config.model_type,
        "window": meter.window,
        "stride": meter.stride,
        **fitted_directions.size_of(meter.layers),
        "target documents": [walk.count for walk in walks],
        "target loss, before and after each step": [[round(loss, 5) for loss in walk.losses] for walk in walks],
        "step sizes": [[float(f"{size:.4g}") for size in walk.sizes] for walk in walks],
        "rounding of the steps": [float(f"{walk.rounding():.2g}") for walk in walks],
    }


class FittedMirror(Fitted):
    """A fitted mirrored-influence scorer; the model is loaded with the first documents.

    arrays: of layer N left.N float32 (outputs, ranks) and right.N float32 (inputs, ranks), those of all groups side by
    side, whose product is taken from the weights; ranks int32 (layers, groups); falls float64 (groups,), of the
    targets' own mean loss; layers, names as JSON, uint8; digests uint8 (1, 16), of the model's files.
    """

    scorer: Mirror
    unscored = UNSCORED

    @classmethod
    def schema(cls, scorer: Any) -> Schema:  # noqa: ARG003
        """Return two thin matrices for each layer."""
        return {
            **fitted_directions.sides(),
            "ranks": ArraySpec("int32", ("layers", "groups"), minimum=1),
            "falls": ArraySpec("float64", ("groups",), minimum=0),
            "layers": Names(),
            "digests": ArraySpec("uint8", (1, fitted_directions.DIGEST)),
            **GROUPS,
        }

    def check(self) -> None:
        """Raise Unfit unless the matrices are as wide as the ranks of all groups."""
        fitted_directions.check_ranks(self.arrays, self.arrays["ranks"])

    @functools.cached_property
    def meter(self) -> GradientMeter:
        """The model's meter."""
        (meter,) = fitted_directions.meters(self.scorer, self.arrays["digests"], unpacked(self.arrays["layers"]))
        return meter

    @functools.cached_property
    def moves(self) -> list[list[Direction]]:
        """The steps, by group, then by layer."""
        layers = [self._moves_of(number, ranks) for number, ranks in enumerate(self.arrays["ranks"].tolist())]
        return [list(group) for group in zip(*layers, strict=True)]

    def _moves_of(self, layer: int, ranks: list[int]) -> list[Direction]:
        import torch

        from dvsel.gradients.low_rank import Direction

        mine, pair = self.meter.layers[layer], [self.arrays[f"{side}.{layer}"] for side in ("left", "right")]
        fitted_directions.check_size(mine, *map(len, pair))
        left, right = (torch.from_numpy(np.array(side)).to(mine.module.weight.device) for side in pair)
        sides = zip(torch.split(left, ranks, 1), torch.split(right, ranks, 1), strict=True)
        return [Direction(*pair) for pair in sides]

    def score(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Return float32 (n,) or (n, groups); NaN where there is nothing to score, or where a loss is not finite."""
        documents = self.scorer.documents([batch])
        shape = len(documents), len(self.groups)
        found = (self._scored(documents) if len(documents) else np.empty(shape)).astype(np.float32)
        return found[:, 0] if len(self.groups) == 1 else found

    def _scored(self, documents: Documents) -> npt.NDArray[np.float64]:
        """Return scores by group, float64 (n, groups)."""
        meter, reduction = self.meter, self.scorer.reduction
        from dvsel.gradients.target_steps import moved

        def losses(moves: list[Direction] | None) -> npt.NDArray[np.float64]:
            with moved(meter.layers, moves) if moves else contextlib.nullcontext():
                passed = meter.run(documents, None, reduction)
            if not moves:
                fitted_directions.warn_non_finite(passed, documents)
            return passed.reduced(reduction)

        before, *after = map(losses, parts([None, *self.moves]))
        found: npt.NDArray[np.float64] = (before[:, None] - np.stack(after, 1)) / self.arrays["falls"]
        return found


Mirror.fitted = FittedMirror
