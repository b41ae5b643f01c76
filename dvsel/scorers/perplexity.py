"""The loss of documents under a causal language model.

Other methods use this score under other names: perplexity filters keep text of low loss (CCNet: Wenzek et al.
2020, "CCNet: Extracting High Quality Monolingual Datasets from Web Crawl Data"); PreSelect compares bits per character
under several models (Shum et al. 2025); Min-K% Prob is the mean log-probability of the least likely tokens (Shi et al.
2024, "Detecting Pretraining Data from Large Language Models"); GRAPE keeps the response that the model finds likeliest
given the instruction (Zhang et al. 2025, "The Best Instruction-Tuning Data are Those That Fit").

`dvsel.language.token_losses` says what exactly is computed. The fitted scorer names the model and holds no weights; it
holds a digest of the model's files, so that no scores of two models are mixed up.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from dvsel.errors import UserError
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.language import MEASURES, PromptOptions
from dvsel.options import option, under
from dvsel.schema import ArraySpec, Schema

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch
    from dvsel.language.token_losses import LossMeter


@dataclass(frozen=True)
class Perplexity(PromptOptions, Scorer):
    """Prefer documents that a causal language model finds likely.

    The score is minus the loss, in the measure that is chosen.
    """

    group: ClassVar[str] = "language model"
    usage: ClassVar[tuple[str, ...]] = ("--model models/pythia-160m",)
    uses_all_cores: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-3

    model: str = option("", "causal language model: a folder, or a name on the Hugging Face hub", files=True)
    measure: str = option(
        "mean",
        "mean: nats a token; total: nats; bits-per-char; min-k: nats a token, of the least likely tokens",
        choices=MEASURES,
    )
    min_k: float = option(
        20.0,
        "min-k: the percentage of tokens that are taken",
        above=0,
        maximum=100,
        when=under("measure", "min-k"),
    )

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> FittedPerplexity:  # noqa: ARG002
        """Check that the model can be used, without its weights."""
        if not self.model:
            raise UserError("perplexity: no model; name a folder or hub name with --model")
        from dvsel.language.cards import describe

        card = describe(self.model)
        window, stride = card.windows(self.window, self.stride)
        fitted = FittedPerplexity(self, {"digest": np.frombuffer(card.digest, np.uint8)})
        fitted.report = {
            "architecture": card.config.model_type,
            "window": window,
            "stride": stride,
            "start token": None if card.start is None else card.tokenizer.convert_ids_to_tokens(card.start),
        }
        return fitted


class FittedPerplexity(Fitted):
    """A fitted perplexity scorer; the model is loaded with the first documents.

    arrays: digest uint8 (16,), of the model's files.
    """

    scorer: Perplexity

    @functools.cached_property
    def unscored(self) -> str:
        """Nothing to take a loss of, as a cause."""
        return "no tokens to score, or no prompt" if self.scorer.prompt_field else "no tokens to score"

    @classmethod
    def schema(cls, scorer: Any) -> Schema:  # noqa: ARG003
        """Return the digest of the model's files."""
        return {"digest": ArraySpec("uint8", (16,))}

    @functools.cached_property
    def _meter(self) -> LossMeter:
        from dvsel.language.models import load

        scorer = self.scorer
        model = load(scorer.model, scorer.precision)
        if model.card.digest != self.arrays["digest"].tobytes():
            raise UserError(f"model {scorer.model}: its files changed after the fit; fit again")
        from dvsel.language.token_losses import LossMeter  # needs torch, without which `load` has said so

        return LossMeter(model, scorer.window, scorer.stride, scorer.batch_tokens)

    def score(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Return minus the loss, float32 (n,); NaN without a token to score, or where the prompt is not a string."""
        if not len(batch):
            return np.empty(0, np.float32)
        meter = self._meter
        from dvsel.language.token_losses import measure

        documents = self.scorer.documents([batch])
        losses = meter.token_losses(documents.texts, documents.prompts)
        found = [
            measure(one, self.scorer.measure, len(text), self.scorer.min_k)
            for one, text in zip(losses, documents.texts, strict=True)
        ]
        return -np.array(found, np.float32)


Perplexity.fitted = FittedPerplexity
