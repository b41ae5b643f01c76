"""The fitted scorer that compares documents' gradients with directions, under one model or several checkpoints of it.

score = sum over models of weight * <G, Q>, or of weight * <G, Q> / (|G| |Q|), over all layers that count. With
similarity dot, scores are scaled so that the mean over the target's own documents is 1.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from dvsel.errors import Notice, UserError
from dvsel.gradients.options import UNSCORED, DirectedOptions, GradientOptions, GroupOptions
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.language import Documents
from dvsel.progress import parts
from dvsel.schema import GROUPS, ArraySpec, Names, Schema, Unfit, packed, unpacked

if TYPE_CHECKING:
    import torch

    from dvsel.documents.columns import Batch
    from dvsel.gradients.compare import Comparison
    from dvsel.gradients.gradient_pass import GradientMeter, Passed
    from dvsel.gradients.layers import Layer
    from dvsel.gradients.loss_outputs import Output
    from dvsel.gradients.low_rank import Cut, Direction
    from dvsel.gradients.target_gradient import Found, Preconditioner
    from dvsel.language.models import Model

Arrays = dict[str, npt.NDArray[Any]]

DIGEST = 16
"""Bytes of a model's digest."""


class FittedDirections(Fitted):
    """Directions for each of the scorer's models; a model is loaded with the first documents.

    scorer: a Scorer that is a GroupOptions too. arrays: of model M and layer N left.M.N float32 (outputs, rank) and
    right.M.N float32 (inputs, rank), those of all groups side by side; ranks int32 (models, layers, groups); weights
    float64 (models,); layers, names as JSON, uint8; digests uint8 (models, 16), of the models' files.
    """

    unscored = UNSCORED

    @classmethod
    def fit(
        cls,
        scorer: DirectedOptions,
        pool: Documents,
        targets: Mapping[str, Iterable[Batch]],
        curvature: Preconditioner,
        weights: Sequence[float] = (1.0,),
    ) -> Self:
        """Take the target's mean gradient under each of the scorer's models, preconditioned and cut.

        pool: documents for the curvature. weights: of the models.
        """
        from dvsel.gradients.low_rank import Cut

        cut, scale = Cut(scorer.wanted_rank, scorer.energy), scorer.similarity == "dot"
        return cls.fit_cut(scorer, pool, targets, curvature, cut, weights, scale)

    @classmethod
    def fit_cut(
        cls,
        scorer: GroupOptions,
        pool: Documents,
        targets: Mapping[str, Iterable[Batch]],
        curvature: Preconditioner,
        cut: Cut,
        weights: Sequence[float],
        scale: bool,
    ) -> Self:
        """Fit as `fit` does, with another cut than the options'.

        scale: whether to bring the mean score of the target's own documents to 1.
        """
        from dvsel.gradients import layers as choice
        from dvsel.gradients import target_gradient

        assert isinstance(scorer, Scorer)
        groups = scorer.target_groups(targets)
        found, digests, meter = [], [], None
        for name in scorer.models:
            model = scorer.load(name)
            meter = scorer.meter(model, [layer.name for layer in choice.choose(model, scorer.wanted_layers)])
            queries = [
                target_gradient.mean_gradient(meter, texts, scorer.reduction, place) for place, texts in groups.items()
            ]
            found.append(target_gradient.find(meter, queries, curvature, pool, cut))
            digests.append(np.frombuffer(model.card.digest, np.uint8))
        assert meter is not None
        factors = _scales(found, weights) if scale else [1.0] * len(groups)
        documents = np.array([one.documents for one in found[0].queries], np.float64)
        fitted = cls(
            scorer,
            _arrays(found, weights, factors) | {"digests": np.stack(digests)},
            groups=scorer.group_names(targets),
            shares=documents / documents.sum(),
        )
        fitted.report = _report(found, meter) | {"documents for the curvature": len(pool)}
        return fitted

    @classmethod
    def schema(cls, scorer: Any) -> Schema:
        """Return two thin matrices for each model and layer."""
        models = range(len(scorer.models))
        return {
            **{name: spec for model in models for name, spec in sides(f"{model}.").items()},
            "ranks": ArraySpec("int32", (len(models), "layers", "groups"), minimum=1),
            "weights": ArraySpec("float64", (len(models),)),
            "layers": Names(),
            "digests": ArraySpec("uint8", (len(models), DIGEST)),
            **GROUPS,
        }

    def check(self) -> None:
        """Raise Unfit unless the matrices are as wide as the ranks of all groups."""
        for model, of_layers in enumerate(self.arrays["ranks"]):
            check_ranks(self.arrays, of_layers, f"{model}.")

    @property
    def options(self) -> GroupOptions:
        """The scorer, as the options that it has."""
        assert isinstance(self.scorer, GroupOptions)
        return self.scorer

    @property
    def cosine(self) -> bool:
        """True where products are divided by norms."""
        return isinstance(self.scorer, DirectedOptions) and self.scorer.similarity == "cosine"

    def lines(self) -> list[str]:
        """Return the report, without the ranks of each layer."""
        return [f"{name}: {value}" for name, value in self.report.items() if name != "ranks"]

    @functools.cached_property
    def meters(self) -> list[GradientMeter]:
        """The meters, one for each model."""
        return meters(self.options, self.arrays["digests"], unpacked(self.arrays["layers"]))

    @functools.cached_property
    def directions(self) -> list[list[list[Direction]]]:
        """The directions by model, by layer, then by group, in the precision of the layer's weights."""
        return [
            [
                self._directions_of(number, place, ranks, layer)
                for place, (layer, ranks) in enumerate(zip(meter.layers, of_layers, strict=True))
            ]
            for number, (meter, of_layers) in enumerate(zip(self.meters, self.arrays["ranks"].tolist(), strict=True))
        ]

    def _directions_of(self, model: int, place: int, ranks: list[int], layer: Layer) -> list[Direction]:
        import torch

        from dvsel.gradients.low_rank import Direction

        pair = [self.arrays[f"{side}.{model}.{place}"] for side in ("left", "right")]
        check_size(layer, *map(len, pair))
        # Copies: torch wants memory that it may write to, and that of a file may not be.
        left, right = (torch.from_numpy(np.array(side)).to(layer.module.weight) for side in pair)
        sides = zip(torch.split(left, ranks, 1), torch.split(right, ranks, 1), strict=True)
        return [Direction(*both) for both in sides]

    @functools.cached_property
    def _comparisons(self) -> list[list[Comparison]]:
        from dvsel.gradients.compare import comparison

        return [[comparison(layer) for layer in layers] for layers in self.directions]

    def score(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Return float32 (n,) or (n, groups); NaN where there is nothing to score, or where the loss is not finite."""
        documents = self.options.documents([batch])
        shape = len(documents), len(self.groups)
        scores = self._scored(documents) if len(documents) else np.empty(shape, np.float64)
        found = scores.astype(np.float32)
        return found[:, 0] if len(self.groups) == 1 else found

    def _scored(self, documents: Documents) -> npt.NDArray[np.float64]:
        total = np.zeros((len(documents), len(self.groups)))
        for number, weight in enumerate(parts(self.arrays["weights"].tolist())):
            total += weight * self._scored_by(number, documents)
        return total

    def by_token(self, documents: Documents, group: int) -> list[list[tuple[str, float]]]:
        """Return each document's tokens, each with its part in the score of the group, under one model.

        A token's part is that of its position: of the tokens before it, and of the loss of the token after it.
        """
        from dvsel.gradients.compare import PositionScores, comparison

        (meter,), (layers,) = self.meters, self.directions
        ids = meter.objective.read(documents).ids
        positions = PositionScores([comparison([layer[group]]) for layer in layers], [len(one) for one in ids])
        meter.run(documents, positions, self.options.reduction)
        decode = meter.model.card.tokenizer.decode
        return [
            [(decode([token]), value) for token, value in zip(one.tolist(), total.tolist(), strict=True)]
            for one, total in zip(ids, positions.totals, strict=True)
        ]

    def _scored_by(self, number: int, documents: Documents) -> npt.NDArray[np.float64]:
        """Return scores under one model, float64 (n, groups)."""
        return self.compared(number, documents)[0]

    def compared(self, number: int, documents: Documents) -> tuple[npt.NDArray[np.float64], Passed]:
        """Return scores under one model, float64 (n, groups), NaN where there is none, and how the documents passed."""
        meter = self.meters[number]
        from dvsel.gradients.compare import Scores, norms

        scores = Scores(self._comparisons[number], len(documents), len(self.groups), meter.model.device, self.cosine)
        passed = meter.run(documents, scores, self.options.reduction)
        warn_non_finite(passed, documents)
        found = scores.cosines(norms(self.directions[number])) if self.cosine else scores.products
        values: npt.NDArray[np.float64] = found.cpu().numpy()
        values[~(np.isfinite(values).all(1) & passed.scored)] = np.nan
        return values, passed


def meters(
    scorer: GradientOptions, digests: npt.NDArray[np.uint8], layers: Sequence[str], output: Output | None = None
) -> list[GradientMeter]:
    """Return a meter for each of the scorer's models; UserError where one is not the one of the fit."""
    return [
        scorer.meter(unchanged(scorer, name, digest), layers, output)
        for name, digest in zip(scorer.models, digests, strict=True)
    ]


def unchanged(scorer: GradientOptions, name: str, digest: npt.NDArray[np.uint8]) -> Model:
    """Load a model of the fit; UserError where its files changed."""
    model = scorer.load(name)
    if model.card.digest != digest.tobytes():
        raise UserError(f"model {name}: is not the one of the fit, or its files changed; fit again")
    return model


def sides(prefix: str = "") -> Schema:
    """Return the specs of each layer's two thin matrices, which are too large to be read through for NaN."""
    rank = f"rank.{prefix}{{layers}}"
    return {
        f"{side}.{prefix}{{layers}}": ArraySpec("float32", (f"{axis}.{{layers}}", rank), finite=False)
        for side, axis in (("left", "outputs"), ("right", "inputs"))
    }


def check_ranks(arrays: Mapping[str, npt.NDArray[Any]], ranks: npt.NDArray[np.int32], prefix: str = "") -> None:
    """Raise Unfit unless the matrices are as wide as the ranks, int32 (layers, groups), of all groups together."""
    for layer, wanted in enumerate(ranks.sum(1, dtype=np.int64).tolist()):
        if arrays[f"left.{prefix}{layer}"].shape[1] != wanted:
            raise Unfit(f"array left.{prefix}{layer} is not as wide as its ranks say")


def check_size(layer: Layer, outputs: int, inputs: int) -> None:
    """Raise UserError for a layer of another size than that of the fit."""
    if (outputs, inputs) != (layer.outputs, layer.inputs):
        raise UserError(
            f"layer {layer.name}: has {layer.inputs} inputs and {layer.outputs} outputs, and {inputs} and {outputs} "
            "in the fitted file; fit again"
        )


def warn_non_finite(passed: Passed, documents: Documents) -> None:
    """Warn of documents whose losses are NaN or infinite."""
    rows = np.flatnonzero(~np.isfinite(passed.losses)).tolist()
    if rows:
        others = f", as for {len(rows) - 1} others" if len(rows) > 1 else ""
        text = documents.texts[rows[0]][:40]
        warnings.warn(
            Notice(f"no score for the document {text!r}..., whose loss is NaN or infinite{others}"),
            stacklevel=2,
        )


def _arrays(found: Sequence[Found], weights: Sequence[float], factors: Sequence[float]) -> Arrays:
    """Return the arrays of `FittedDirections` but for digests. factors: each group's, for its directions."""
    arrays: Arrays = {}
    for number, one in enumerate(found):
        for place, layer in enumerate(one.directions):
            scaled = [direction.scaled(factor) for direction, factor in zip(layer, factors, strict=True)]
            arrays[f"left.{number}.{place}"] = side_by_side([direction.left for direction in scaled])
            arrays[f"right.{number}.{place}"] = side_by_side([direction.right for direction in scaled])
    return arrays | {
        "ranks": np.array([[[one.rank for one in layer] for layer in one.directions] for one in found], np.int32),
        "weights": np.array(weights, np.float64),
        "layers": packed([layer.name for layer in found[0].layers]),
    }


def _scales(found: Sequence[Found], weights: Sequence[float]) -> list[float]:
    """Return each group's factor that brings the mean score of its own documents to 1."""
    own = np.array(weights) @ np.array([one.own_scores() for one in found])
    if not (own > 0).all():
        raise UserError("the direction, as it is cut, does not lower the target's loss; "
                        "raise --rank or --energy, or pass --preconditioner kfac")  # fmt: skip
    return [float(1 / one) for one in own]


def side_by_side(matrices: Sequence[torch.Tensor]) -> npt.NDArray[np.float32]:
    """Join matrices side by side, laid out by rows as they are saved."""
    return np.ascontiguousarray(np.concatenate([one.cpu().numpy() for one in matrices], 1), np.float32)


def _report(found: Sequence[Found], meter: GradientMeter) -> dict[str, Any]:
    """Return the report of a fit. target loss: nats a token. ranks: of each layer, by model and group."""
    directions = [one for each in found for layer in each.directions for one in layer]
    ranks, energies = [one.rank for one in directions], [one.energy for one in directions]
    queries = found[0].queries
    return {
        "architecture": meter.model.card.config.model_type,
        "window": meter.window,
        "stride": meter.stride,
        **size_of(found[0].layers),
        "target documents": [one.documents for one in queries],
        "target loss": [[round(one.loss, 4) for one in each.queries] for each in found] if len(found) > 1
        else [round(one.loss, 4) for one in queries],
        "rank": f"{min(ranks)} to {max(ranks)}, {sum(ranks) / len(ranks):.1f} on average",
        "energy kept": f"{min(energies):.3f} to {max(energies):.3f}",
        "ranks": {
            layer.name: [one.rank for each in found for one in each.directions[number]]
            for number, layer in enumerate(found[0].layers)
        },
    }  # fmt: skip


def size_of(layers: Sequence[Layer]) -> dict[str, int]:
    """Return a report's numbers of layers and weights that count."""
    return {"layers": len(layers), "weights": sum(layer.inputs * layer.outputs for layer in layers)}
