"""The fitted scorer of methods without a target: a number for each document, under one model or several checkpoints."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dvsel.errors import UserError
from dvsel.gradients import fitted_directions
from dvsel.gradients.options import UNSCORED, GradientOptions
from dvsel.interface.scorer import Fitted
from dvsel.language import Documents
from dvsel.progress import parts
from dvsel.schema import ArraySpec, Names, Schema, packed, unpacked

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch
    from dvsel.gradients.gradient_pass import GradientMeter
    from dvsel.gradients.layers import Layer
    from dvsel.gradients.loss_outputs import Output
    from dvsel.language.cards import Card

Floats = npt.NDArray[np.float64]


class FittedCheckpoints(Fitted):
    """The mean over the scorer's models of a number for each document; they are loaded with the first documents.

    scorer: a Scorer that is a GradientOptions too. arrays: layers, names as JSON, uint8; digests uint8 (models, 16), of
    the models' files.
    """

    unscored = UNSCORED

    @classmethod
    def schema(cls, scorer: Any) -> Schema:
        """Return the models' digests, and the names of layers."""
        return {
            "layers": Names(minimum=0),
            "digests": ArraySpec("uint8", (len(scorer.models), fitted_directions.DIGEST)),
        }

    @property
    def options(self) -> GradientOptions:
        """The scorer, as the options that it has."""
        assert isinstance(self.scorer, GradientOptions)
        return self.scorer

    @functools.cached_property
    def meters(self) -> list[GradientMeter]:
        """The meters, one for each model; all are held."""
        layers = unpacked(self.arrays["layers"])
        return fitted_directions.meters(self.options, self.arrays["digests"], layers, self.output())

    def output(self) -> Output | None:
        """Return the output that gradients are taken of; None: the loss."""
        return None

    def values(self, meter: GradientMeter, documents: Documents) -> Floats:
        """Return each document's number under one model, float64 (n,); not finite where it has none."""
        raise NotImplementedError

    def score(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Return float32 (n,); NaN where there is nothing to score, or where a loss is not finite."""
        documents = self.options.documents([batch])
        return (self.scored(documents) if len(documents) else np.empty(0)).astype(np.float32)

    def scored(self, documents: Documents) -> Floats:
        """Return the score of each document, float64 (n,)."""
        found = np.mean([self.values(meter, documents) for meter in parts(self.meters)], 0)
        return np.where(np.isfinite(found), found, np.nan)


def fit(scorer: GradientOptions, layers: Sequence[Layer] = ()) -> tuple[fitted_directions.Arrays, dict[str, Any]]:
    """Return the arrays of `FittedCheckpoints`, and its report. layers: those that count, if any do.

    Raises UserError for models that cannot be used, or are not of one shape and of the same tokens.
    """
    cards = scorer.check()
    check_alike(cards)
    window, stride = cards[0].windows(scorer.window, scorer.stride)
    digests = np.stack([np.frombuffer(card.digest, np.uint8) for card in cards])
    report = {"architecture": cards[0].config.model_type, "models": len(cards), "window": window}
    if not cards[0].classifier:
        report["stride"] = stride
    arrays = {"layers": packed([layer.name for layer in layers]), "digests": digests}
    return arrays, report | (fitted_directions.size_of(layers) if layers else {})


def check_alike(cards: Sequence[Card]) -> None:
    """Raise UserError for models that are not of one shape, as checkpoints of a training run are."""
    for card in cards:
        if _shape(card) != _shape(cards[0]):
            raise UserError(
                f"model {card.name}: is not a checkpoint of the same model as {cards[0].name}; name those of one"
            )


def _shape(card: Card) -> tuple[Any, ...]:
    """Return what all checkpoints of a training run have in common."""
    text = card.config.get_text_config() if hasattr(card.config, "get_text_config") else card.config
    sizes = (getattr(text, name, None) for name in ("hidden_size", "num_hidden_layers", "vocab_size"))
    return (card.config.model_type, card.classifier, card.start, *sizes, card.tokenizer.get_vocab())
