"""fastText classifiers (Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification"): any supervised model
from its file, or one trained on documents to keep and documents to drop.

The score is the log-odds of the chosen labels, exactly as fastText's outputs give them, whatever the batch; with
`--probability` it is the number that fastText's `predict` reports, which saturates near 1 and so ranks worse.

DCLM (Li et al. 2024, "DataComp-LM") trains on instruction data and upvoted answers against web text, with bigrams,
and keeps the top 10%: these are the defaults, but for the documents themselves. Without negatives a sample of the
pool takes their place.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dvsel.errors import Notice, UserError
from dvsel.fasttext import MODES
from dvsel.fasttext.classifier import FittedClassifier, classify, classify_file
from dvsel.fasttext.examples import Training
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.options import option

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch


@dataclass(frozen=True)
class FastText(Training, Scorer):
    """Prefer documents that a fastText classifier takes for good: a model of yours, or one trained here (DCLM).

    The score is the log-odds of the label, computed by table look-up, equal to fastText's own.
    """

    group: ClassVar[str] = "classifier"
    fitted: ClassVar[type[Fitted]] = FittedClassifier
    usage: ClassVar[tuple[str, ...]] = ("--model quality.bin", "--positive good.jsonl --negative crawl.jsonl")
    selector: ClassVar[str] = "topk"

    model: str = option("", "a supervised fastText model, .bin or .ftz: a path or any URL", files=True)
    label: str = option("", "what to keep: a label of the model, or several as en,fr (default: hq, 1, positive...)")
    probability: bool = option(False, "score with the probability that fastText reports, not the log-odds")
    preprocess: str = option(
        "",
        "what is done to texts first, as the model was trained: space (line ends become spaces), dclm (line ends of "
        "all kinds, ends stripped) or datatrove (line ends vanish) (default: space for --model, else dclm)",
        choices=MODES,
    )
    positive: tuple[str, ...] = option((), "train on these shards as documents to keep", documents=True)
    negative: tuple[str, ...] = option(
        (), "train on these shards as documents to drop (default: a sample of the pool)", documents=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model and not self.positive:
            raise UserError("fasttext: no classifier; name a model with --model, or documents with --positive")
        if self.model and (self.positive or self.negative):
            raise UserError("fasttext: a model is not trained again; give --model, or --positive and --negative")
        if self.negative and not self.positive:
            raise UserError("fasttext: documents to drop, but none to keep; name some with --positive")
        if self.label and self.positive:
            raise UserError("fasttext: --label is for a model that has labels; drop it")

    @property
    def trains(self) -> bool:
        """True where no model is named."""
        return not self.model

    @property
    def takes_pool(self) -> bool:
        """True where no negatives are named: the pool's sample takes their place."""
        return bool(self.positive and not self.negative)

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> FittedClassifier:
        """Fold the model, or train one on `targets["positive"]` and on `targets["negative"]` or the pool's sample."""
        if self.model:
            return self._of_file()
        from dvsel.fasttext.examples import LABELS
        from dvsel.fasttext.training import learn

        scorer = dataclasses.replace(self, preprocess=self.preprocess or "dclm")
        model, report = learn(targets["positive"], targets.get("negative", pool), self, scorer.preprocess)
        return classify(scorer, model, LABELS[0], scorer.preprocess, self.probability, report)

    def _of_file(self) -> FittedClassifier:
        scorer = dataclasses.replace(self, preprocess=self.preprocess or "space")
        fitted = classify_file(scorer, self.model, self.label, scorer.preprocess, self.probability)
        fitted.scorer = dataclasses.replace(scorer, label=self.label or ",".join(fitted.about.chosen))
        if not self.preprocess:
            warnings.warn(
                Notice(
                    f"{self.model}: does not say what was done to its training texts; line ends become spaces, as for "
                    "PreSelect's (give --preprocess dclm for DCLM's)"
                ),
                stacklevel=3,
            )
        return fitted
