"""PreSelect: predictive data selection (Shum et al. 2025, "Predictive Data Selection: The Data That Predicts Is the
Data That Teaches").

Some documents have losses under several language models that order these models as a benchmark does; they are taken for
the documents that teach best. On a sample, a fastText classifier learns to tell them from the others; its logit is the
score of the pool's documents.

The fit goes in steps that leave files (`dvsel.commands.preselect`): sample, losses, strength, positives and negatives,
classifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from dvsel.budget import Budget
from dvsel.errors import UserError
from dvsel.fasttext import MODES
from dvsel.fasttext.classifier import FittedClassifier
from dvsel.fasttext.examples import Training
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.language import ModelOptions
from dvsel.options import option


class FittedPreSelect(FittedClassifier):
    """The classifier, with the report of all steps.

    report: what `fasttext.training.learn` found; ladder, a mapping for each model; strength, the distribution;
    labelled, how many documents; ranking, how the classifier's order of documents that it was not trained on agrees
    with their strengths.
    """

    def lines(self) -> list[str]:
        """Return the steps, then the classifier."""
        own = ("ladder", "strength", "labelled", "ranking")
        classifier = FittedClassifier(self.scorer, self.arrays)
        classifier.report = {name: value for name, value in self.report.items() if name not in own}
        if not all(name in self.report for name in own):
            return classifier.lines()
        return [*self._steps(), *classifier.lines(), *self._rankings()]

    def _steps(self) -> list[str]:
        found, labelled = self.report["strength"], self.report["labelled"]
        models = [
            f"{model['name']} {model['score']:g} ({model['bits_per_char']:.3f})" for model in self.report["ladder"]
        ]
        return [
            f"ladder, score and bits a character: {', '.join(models)}",
            f"strength ({found['strength']}) of {sum(found['documents']):,} documents: {found['in_order']:,} have all "
            f"{found['pairs']} pairs in order, {found['tied']:,} have equal losses in some pair",
            f"labelled {labelled['positive']:,} documents positive, {labelled['negative']:,} negative",
        ]

    def _rankings(self) -> list[str]:
        lines = ["rank correlation of score and strength, where the classifier was not trained:"]
        for name, found in self.report["ranking"].items():
            documents = f"  {found['documents']:,} documents, {name.replace('_', ' ')}"
            if "spearman" in found:
                documents += (
                    f": {found['spearman']:.3f}; mean strength {found['mean_strength']:.3f}, of the best tenth "
                    f"{found['mean_strength_of_top_tenth']:.3f}"
                )
            lines.append(documents)
        return lines


@dataclass(frozen=True)
class PreSelect(Training, ModelOptions, Scorer):
    """Prefer documents like those whose losses order language models as a benchmark does (Shum et al. 2025).

    It is fitted in steps, which `dvsel fit`, `dvsel score` and `dvsel select` take, and not by a call of `fit`.
    """

    group: ClassVar[str] = "classifier"
    usage: ClassVar[tuple[str, ...]] = ("--pool pool/ --ladder ladder.yaml",)
    steps: ClassVar[str] = "preselect"
    fitted: ClassVar[type[Fitted]] = FittedPreSelect

    ladder: str = option("", "YAML file of language models and their benchmark scores", files=True)
    strength: str = option(
        "pairs",
        "what orders the models: pairs, share of the pairs in order, as the paper; spearman: rank correlation",
        choices=("pairs", "spearman"),
    )
    positive_share: str = option(
        "", "share of the sample's documents that are positives, such as 10% (default: all whose pairs are in order)"
    )
    negative_share: str = option("", "share that are negatives, the lowest (default: as many as positives)")
    epochs: int = option(3, "times that the classifier sees each document", minimum=1)
    preprocess: str = option(
        "space",
        "what is done to white space first: space (newlines to spaces), or as dclm or datatrove do",
        choices=MODES,
    )
    probability: bool = option(False, "score with the probability of the positives instead of the logit")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ladder:
            raise UserError("preselect: no ladder; name the file of models and their scores with --ladder ladder.yaml")
        shares = self.share_of_positives or 0, self.share_of_negatives or 0
        if sum(shares) > 1:
            raise UserError("preselect: positives and negatives together are more than the sample; give smaller shares")

    @property
    def takes_pool(self) -> bool:
        """True: the classifier learns from the pool's sample."""
        return True

    @property
    def share_of_positives(self) -> Fraction | None:
        """`positive_share` as a number; None for the paper's rule."""
        return _share(self.positive_share, "--positive-share")

    @property
    def share_of_negatives(self) -> Fraction | None:
        """`negative_share` as a number; None for as many as there are positives."""
        return _share(self.negative_share, "--negative-share")


def _share(text: str, place: str) -> Fraction | None:
    if not text:
        return None
    share = Budget.parse(text, place).share
    if share is None:
        raise UserError(f"{place}: {text!r} is not a share of the sample's documents; give one such as 10%")
    return share
