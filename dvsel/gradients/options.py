"""Options of scorers by gradients: the model, how documents go through it, and how they are compared."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dvsel.errors import UserError
from dvsel.gradients import EFFORTS, KRONECKER, REDUCTIONS, SIMILARITIES
from dvsel.language import Documents, PromptOptions, strings
from dvsel.options import option, provided

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch
    from dvsel.gradients.gradient_pass import GradientMeter
    from dvsel.gradients.loss_outputs import Output
    from dvsel.language.cards import Card
    from dvsel.language.models import Model

UNSCORED = "no tokens to score, no label that the model knows, or a loss that is NaN or infinite"


@dataclass(frozen=True)
class GradientOptions(PromptOptions):
    """The model, and how documents go through it."""

    takes_gradients: ClassVar[bool] = True

    model: str = option(
        "",
        "causal language model, sequence classifier, or PEFT adapter: a folder, or a name on the Hugging Face hub",
        files=True,
    )
    label_field: str = option("", "field with a document's label, for sequence classifiers")
    reduction: str = option("mean", "of a document's token losses, in pool and target", choices=REDUCTIONS)
    batch_tokens: int = option(0, "tokens in a batch; 0: 4096 on a CPU, 16384 on a GPU", minimum=0)
    packing: bool = option(False, "lay several documents into one row, where the model keeps them apart")
    checkpointing: bool = option(
        False,
        "hold few activations, and compute them again: for long windows",
        when=provided("takes_gradients", "is for gradients, and this method takes none; drop it"),
    )
    spread: bool = option(False, "lay a model that one GPU cannot hold over all of them, by accelerate")

    @property
    def models(self) -> tuple[str, ...]:
        """The models to load, in order: checkpoints of one, where there are several."""
        return (self.model,)

    def processes_for(self, embedded: bool) -> int:
        """Return one process for each GPU, unless the model is spread over them."""
        return 1 if self.spread else super().processes_for(embedded)

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields to read beside the text."""
        return (*super().needs, *((self.label_field,) if self.label_field else ()))

    def documents(self, batches: Iterable[Batch]) -> Documents:
        """Return the batches' documents, in order, with labels where there is a field for them."""
        batches = list(batches)
        found = super().documents(batches)
        if not self.label_field:
            return found
        labels = [label for batch in batches for label in strings(batch.columns[self.label_field])]
        return Documents(found.texts, found.prompts, labels)

    def check(self) -> list[Card]:
        """Return the models without their weights; UserError where one is not named, or cannot be found and used."""
        if not all(self.models):
            raise UserError("no model; name a folder or hub name with --model")
        from dvsel.language.cards import describe

        cards = [describe(name, classifiers=True) for name in self.models]
        for card in cards:
            self._check_fields(card)
        return cards

    def _check_fields(self, card: Card) -> None:
        """Raise UserError where labels or instructions and a model do not go together."""
        if card.classifier and not self.label_field:
            raise UserError(f"model {card.name}: is a sequence classifier; name the field of labels with --label-field")
        if self.label_field and not card.classifier:
            raise UserError(f"model {card.name}: is not a sequence classifier; drop --label-field")
        if self.prompt_field and card.classifier:
            raise UserError(f"model {card.name}: a sequence classifier takes no instruction apart; drop --prompt-field")

    def load(self, name: str) -> Model:
        """Load one of `models`. Raises UserError where labels and model do not go together."""
        from dvsel.language.models import load

        model = load(name, self.precision, classifiers=True, spread=self.spread)
        self._check_fields(model.card)
        return model

    def meter(self, model: Model, names: Iterable[str] = (), output: Output | None = None) -> GradientMeter:
        """Return the meter that documents go through, for layers of these names. output: cross entropy, if None."""
        from dvsel.gradients.gradient_pass import GradientMeter
        from dvsel.gradients.layers import named
        from dvsel.gradients.loss_outputs import cross_entropy

        return GradientMeter(
            model,
            named(model, names),
            self.window,
            self.stride,
            self.batch_tokens,
            output=output or cross_entropy,
            packing=self.packing,
            checkpointing=self.checkpointing,
        )

    def sample(self, pool: Iterable[Batch], size: int) -> Documents:
        """Return the first `size` documents of the pool's sample."""
        return first(self.documents(batches_for(pool, size)), size)


@dataclass(frozen=True)
class CheckpointOptions(GradientOptions):
    """A model or several checkpoints of it. Raises UserError where both are named."""

    checkpoints: tuple[str, ...] = option(
        (), "checkpoints of a run, in place of --model: folders or hub names", files=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model and self.checkpoints:
            raise UserError("--checkpoints beside --model; name all models with --checkpoints, and drop --model")

    @property
    def models(self) -> tuple[str, ...]:
        """The checkpoints, or the model alone."""
        return self.checkpoints or (self.model,)


def _curved(options: Any) -> str:
    none = getattr(options, "preconditioner", "") == "none"
    return "is for the curvature, and --preconditioner none has none; drop one of the two" if none else ""


@dataclass(frozen=True)
class SampleOptions(GradientOptions):
    """The sample of the pool that a curvature is taken from, and its damping."""

    damping: float = option(
        0.1, "added to the curvature's eigenvalues, as a multiple of their mean", above=0, when=_curved
    )
    factor_documents: int = option(
        1000,
        "documents of the pool's sample that the curvature is taken from, at most",
        minimum=1,
        when=provided("takes_pool", "is of the pool's sample, and these options need none; drop it"),
    )


@dataclass(frozen=True)
class CurvatureOptions(SampleOptions):
    """The curvature that gradients are divided by."""

    preconditioner: str = option(
        "kfac", "curvature, of a sample of the pool; none: plain gradients, without a pool", choices=KRONECKER
    )

    @property
    def takes_pool(self) -> bool:
        """True where there is a curvature, which is the pool's."""
        return self.preconditioner != "none"


@dataclass(frozen=True)
class GroupOptions(GradientOptions):
    """The layers whose gradients of the target count, and whether each target has scores of its own."""

    layers: str = option("", "all, upper-half or last of the model's blocks, or names, as *.mlp.*,*.o_proj")
    separate_targets: bool = option(False, "score once for each target, and split the budget between them by size")

    @property
    def wanted_layers(self) -> str:
        """`layers`, or the default in its place."""
        return self.layers or "all"

    def group_names(self, targets: Mapping[str, Any]) -> list[str]:
        """Return the names of the score's columns: the targets', or one empty name."""
        return list(targets) if self.separate_targets else [""]

    def target_groups(self, targets: Mapping[str, Iterable[Batch]]) -> dict[str, Documents]:
        """Return the documents of each target, or of all together, by their name in messages."""
        if not targets:
            raise UserError("no target; name one with --target FILE")
        if self.separate_targets:
            return {f"target {name}": self.documents(batches) for name, batches in targets.items()}
        return {f"target {', '.join(targets)}": self.documents(itertools.chain(*targets.values()))}


@dataclass(frozen=True)
class TargetOptions(GroupOptions):
    """The layers and the rank that the target's gradient is cut to."""

    effort: str = option(
        "high",
        "layers and rank, unless given: low: last, 16; medium: upper-half, 16; high: all, 32; full: all, not cut",
        choices=tuple(EFFORTS),
    )
    rank: int | None = option(None, "rank that the target's gradient is cut to in each layer; 0: not cut", minimum=0)
    energy: float = option(
        0.0, "cut each layer at the rank that keeps this share of squares, as 0.9; 0: at --rank", minimum=0, maximum=1
    )

    @property
    def wanted_layers(self) -> str:
        """`layers`, or the effort's."""
        return self.layers or EFFORTS[self.effort][0]

    @property
    def wanted_rank(self) -> int:
        """`rank`, or the effort's."""
        return EFFORTS[self.effort][1] if self.rank is None else self.rank


@dataclass(frozen=True)
class DirectedOptions(TargetOptions):
    """The comparison of documents' gradients with the target's."""

    similarity: str = option(
        "dot", "dot: the inner product; cosine: over the norms of both gradients", choices=SIMILARITIES
    )


def batches_for(pool: Iterable[Batch], size: int) -> list[Batch]:
    """Return as many of the first batches as hold `size` documents."""
    found: list[Batch] = []
    held = 0
    for batch in pool:
        if held >= size:
            break
        found.append(batch)
        held += len(batch)
    return found


def first(documents: Documents, size: int) -> Documents:
    """Return the first `size` documents."""
    return documents[:size]
