"""LESS (Xia et al. 2024, "LESS: Selecting Influential Data for Targeted Instruction Tuning"): documents on which Adam
would step the way that some task's gradient points.

    score = max over tasks of the sum over checkpoints i of eta_i cos(Gamma_i(document), grad L_i(task))

over the weights of a LoRA adapter, trained on a random part of the pool for some epochs, each of which leaves a
checkpoint with its mean learning rate eta_i, here as shares that sum to 1. Gamma is the step that Adam would take on
the document alone (`dvsel.gradients.adam_updates`); grad L(task) the mean of the gradients of the task's documents. The
paper projects both to 8,192 random dimensions to store them; here each document's cosines are computed whole, in the
pass that makes its gradient, and nothing is stored but the score.

Where the authors' program differs from their paper, `variant` chooses: in the program Adam's moments are not
corrected for their bias, and the cosine is taken with each of the task's documents, and then the mean.

The fitted scorer holds the adapter and Adam's moments at each checkpoint and the tasks' gradients there; of the model
itself the name and a digest of its files.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from dvsel.errors import UserError
from dvsel.gradients import fitted_directions
from dvsel.gradients.options import UNSCORED, GradientOptions
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.language import Documents
from dvsel.options import option
from dvsel.progress import parts
from dvsel.schema import GROUPS, ArraySpec, Schema, Unfit

if TYPE_CHECKING:
    import torch

    from dvsel.documents.columns import Batch
    from dvsel.gradients.gradient_pass import GradientMeter
    from dvsel.gradients.lora import LoRA
    from dvsel.gradients.warmup import Checkpoint, Course
    from dvsel.language.cards import Card
    from dvsel.language.models import Model

VARIANTS = ("paper", "code")


@dataclass(frozen=True)
class LESS(GradientOptions, Scorer):
    """Prefer documents on which Adam would step the way that some task's gradient points (Xia et al. 2024).

    Each file of a target is a task. A LoRA adapter is trained first, on a part of the pool.
    """

    group: ClassVar[str] = "gradients"
    takes_target: ClassVar[bool] = True
    splits_targets: ClassVar[bool] = True
    usage: ClassVar[tuple[str, ...]] = ("--pool pool/ --target tasks/ --model models/pythia-160m",)
    uses_all_cores: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-2

    layers: str = option(
        "attention", "layers that LoRA adapts: attention, all, upper-half or last of the model's blocks, or names"
    )
    lora_rank: int = option(128, "rank of the adapter", minimum=1)
    lora_alpha: float = option(512.0, "what the adapter adds is times this, over the rank", above=0)
    lora_dropout: float = option(0.1, "share of the adapter's inputs that the warm-up leaves out", minimum=0, below=1)
    warmup_documents: int = option(
        2000, "documents of the pool's sample that the adapter is trained on, at most", minimum=1
    )
    warmup_seed: int = option(0, "of the adapter's first weights, of dropout, and of the order of documents", minimum=0)
    epochs: int = option(4, "of the warm-up; each leaves a checkpoint, under which every document is scored", minimum=1)
    learning_rate: float = option(2e-5, "of the warm-up, at its highest", above=0)
    batch_documents: int = option(128, "documents in a step of the warm-up", minimum=1)
    variant: str = option(
        "paper",
        "code: as the authors' program, without Adam's bias correction, with the mean of cosines",
        choices=VARIANTS,
    )
    separate_targets: bool = option(False, "score once for each task, and split the budget between them by size")

    @property
    def takes_pool(self) -> bool:
        """True: the adapter is trained on it."""
        return True

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> FittedLESS:
        """Train the adapter, and take the tasks' gradients under each of its checkpoints."""
        self.check()
        tasks = {name: self.documents(batches) for name, batches in targets.items()}
        if not tasks:
            raise UserError("no target; name a folder of tasks with --target DIR, or a file for each")
        return _Fit(self, self.sample(pool, self.warmup_documents), tasks).fitted()

    def check(self) -> list[Card]:
        """Return the model without its weights; UserError where it or a package cannot be found and used."""
        from dvsel.gradients import lora

        lora.check()
        return super().check()

    @property
    def lora(self) -> LoRA:
        """The adapter's settings."""
        from dvsel.gradients.lora import LoRA

        return LoRA(self.layers, self.lora_rank, self.lora_alpha, self.lora_dropout, self.warmup_seed)

    @property
    def course(self) -> Course:
        """The warm-up's settings."""
        from dvsel.gradients.warmup import Course

        return Course(self.epochs, self.learning_rate, self.batch_documents, self.warmup_seed)

    def adapted(self, model: Model) -> GradientMeter:
        """Return the model with a new adapter, whose layers are the ones that count."""
        from dvsel.gradients import lora

        return self.meter(model, lora.attach(model, self.lora))


class _Fit:
    """One fit. sample: documents to train on. tasks: documents by the task's name."""

    def __init__(self, scorer: LESS, sample: Documents, tasks: Mapping[str, Documents]) -> None:
        self.scorer, self.sample, self.tasks = scorer, sample, tasks
        self.meter = scorer.adapted(scorer.load(scorer.model))

    def fitted(self) -> FittedLESS:
        """Return the fitted scorer, with its report."""
        from dvsel.gradients import lora, warmup

        documents = self._checked()
        with lora.training(self.meter.model, self.scorer.warmup_seed):
            checkpoints = warmup.train(self.meter, self.sample, self.scorer.reduction, self.scorer.course)
        queries, losses = zip(*(self._queries(one) for one in checkpoints), strict=True)
        names, counts = ([""], [1]) if not self.scorer.separate_targets else (list(self.tasks), documents)
        shares = np.array(counts, np.float64) / sum(counts)
        fitted = FittedLESS(self.scorer, self._arrays(checkpoints, queries), groups=names, shares=shares)
        fitted.report = self._report(checkpoints, documents, losses)
        return fitted

    def _checked(self) -> list[int]:
        """Count the usable documents of each task; UserError for a task without any, before the warm-up."""
        from dvsel.gradients.target_gradient import checked

        return [
            checked(self.meter.run(documents, None, self.scorer.reduction), f"target {name}")
            for name, documents in self.tasks.items()
        ]

    def _queries(self, checkpoint: Checkpoint) -> tuple[npt.NDArray[np.float32], list[float]]:
        """Return the gradients to compare with under a checkpoint, (tasks, weights), and each task's loss there."""
        from dvsel.gradients import lora
        from dvsel.gradients.target_gradient import mean_gradient

        lora.put(self.meter.layers, checkpoint.weights)
        found, losses = [], []
        for name, documents in self.tasks.items():
            query = mean_gradient(self.meter, documents, self.scorer.reduction, f"target {name}")
            found.append(_unit(query.gradients) if self.scorer.variant == "paper" else self._mean_of_units(documents))
            losses.append(round(query.loss, 4))
        return np.stack(found), losses

    def _mean_of_units(self, documents: Documents) -> npt.NDArray[np.float32]:
        """Return the mean of the documents' gradients, each brought to length 1."""
        from dvsel.gradients.moments import GradientSum

        units, total = [], GradientSum(self.meter.layers)
        for row in range(len(documents)):
            total.reset()
            if self.meter.run(documents.take([row]), total, self.scorer.reduction).scored.all():
                units.append(_unit(total.total))
        mean: npt.NDArray[np.float32] = np.stack(units).mean(0, dtype=np.float32)
        return mean

    def _arrays(
        self, checkpoints: Sequence[Checkpoint], queries: Sequence[npt.NDArray[np.float32]]
    ) -> fitted_directions.Arrays:
        rates = np.array([one.rate for one in checkpoints])
        return {
            "adapter": np.stack([_flat(one.weights) for one in checkpoints]),
            "first": np.stack([_flat(one.first) for one in checkpoints]),
            "second": np.stack([_flat(one.second) for one in checkpoints]),
            "tasks": np.stack(queries),
            "weights": rates / rates.sum(),
            "steps": np.array([one.steps for one in checkpoints], np.int64),
            "digest": np.frombuffer(self.meter.model.card.digest, np.uint8),
        }

    def _report(
        self, checkpoints: Sequence[Checkpoint], documents: Sequence[int], losses: Sequence[list[float]]
    ) -> dict[str, Any]:
        """Return the report. documents: of each task. losses: nats a token, of each task after each epoch."""
        layers = self.meter.layers
        return {
            "architecture": self.meter.model.card.config.model_type,
            "window": self.meter.window,
            "stride": self.meter.stride,
            "adapted layers": len(layers) // 2,
            "adapter's weights": sum(layer.inputs * layer.outputs for layer in layers),
            "warm-up documents": len(self.sample),
            "steps": checkpoints[-1].steps,
            "mean learning rates": [float(f"{one.rate:.4g}") for one in checkpoints],
            "warm-up losses": [round(one.loss, 4) for one in checkpoints],
            "task documents": dict(zip(self.tasks, documents, strict=True)),
            "task losses": {
                name: [of_tasks[number] for of_tasks in losses] for number, name in enumerate(self.tasks)
            },
        }  # fmt: skip


class FittedLESS(Fitted):
    """A fitted LESS; the model is loaded with the first documents.

    arrays: the adapter's weights in a row, those of all its layers in the model's order, A before B: adapter float32
    (checkpoints, weights); first, second float32 (checkpoints, weights), Adam's moments; tasks float32 (checkpoints,
    tasks, weights), the gradients to compare with; weights float64 (checkpoints,), the learning rates' shares; steps
    int64 (checkpoints,), so far; digest uint8 (16,), of the model's files.
    """

    scorer: LESS
    unscored = UNSCORED

    @classmethod
    def schema(cls, scorer: Any) -> Schema:
        """Return the adapter's weights at each checkpoint, and moments and tasks of the same size."""
        checkpoints = ArraySpec("float32", (scorer.epochs, "weights"), finite=False)
        return {
            "adapter": checkpoints,
            "first": checkpoints,
            "second": checkpoints,
            "tasks": ArraySpec("float32", (scorer.epochs, "tasks", "weights"), finite=False),
            "weights": ArraySpec("float64", (scorer.epochs,), minimum=0, maximum=1),
            "steps": ArraySpec("int64", (scorer.epochs,), minimum=1),
            "digest": ArraySpec("uint8", (fitted_directions.DIGEST,)),
            **GROUPS,
        }

    def check(self) -> None:
        """Raise Unfit unless each task is a group, or all tasks are one."""
        if len(self.groups) not in (1, self.arrays["tasks"].shape[1]):
            raise Unfit("its groups are not its tasks")

    @functools.cached_property
    def meter(self) -> GradientMeter:
        """The model with an adapter, whose weights come with each checkpoint."""
        model = fitted_directions.unchanged(self.scorer, self.scorer.model, self.arrays["digest"])
        from dvsel.gradients import lora

        held, wanted = self.arrays["adapter"].shape[1], lora.size(model, self.scorer.lora)
        if held != wanted:
            raise UserError(
                f"model {self.scorer.model}: an adapter of it has {wanted:,} weights, and the fitted file {held:,}; "
                "fit again"
            )
        return self.scorer.adapted(model)

    def score(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Return float32 (n,), from -1 to 1, or (n, tasks); NaN where there is nothing to score or no finite loss."""
        documents = self.scorer.documents([batch])
        scores = self._by_task(documents) if len(documents) else np.empty((0, self.arrays["tasks"].shape[1]))
        found = scores.astype(np.float32)
        return found if len(self.groups) > 1 else found.max(1)

    def _by_task(self, documents: Documents) -> npt.NDArray[np.float64]:
        """Return scores by task, float64 (n, tasks)."""
        total = np.zeros((len(documents), self.arrays["tasks"].shape[1]))
        for number, weight in enumerate(parts(self.arrays["weights"].tolist())):
            total += weight * self._cosines(number, documents)
        return total

    def _cosines(self, checkpoint: int, documents: Documents) -> npt.NDArray[np.float64]:
        """Return the cosines under one checkpoint, float64 (n, tasks)."""
        from dvsel.gradients import lora
        from dvsel.gradients.adam_updates import Moments, Updates

        adapter, first, second, tasks = (
            self._of_layers(name, checkpoint) for name in ("adapter", "first", "second", "tasks")
        )
        steps, corrected = int(self.arrays["steps"][checkpoint]), self.scorer.variant == "paper"
        moments = [Moments(*pair, steps, corrected) for pair in zip(first, second, strict=True)]
        lora.put(self.meter.layers, adapter)
        updates = Updates(moments, tasks, len(documents), self.meter.model.device)
        passed = self.meter.run(documents, updates, self.scorer.reduction)
        fitted_directions.warn_non_finite(passed, documents)
        values: npt.NDArray[np.float64] = updates.shares().cpu().numpy()
        values[~(np.isfinite(values).all(1) & passed.scored)] = np.nan
        return values

    def _of_layers(self, name: str, checkpoint: int) -> list[torch.Tensor]:
        """Return an array's part for each layer, (..., outputs, inputs), on the device of the layer's weights."""
        import torch

        layers = self.meter.layers
        flat = torch.from_numpy(np.array(self.arrays[name][checkpoint]))  # a copy: torch wants memory that it may write
        parts = torch.split(flat, [layer.outputs * layer.inputs for layer in layers], -1)
        return [
            part.reshape(*part.shape[:-1], layer.outputs, layer.inputs).to(layer.module.weight)
            for part, layer in zip(parts, layers, strict=True)
        ]


def _flat(tensors: Sequence[torch.Tensor]) -> npt.NDArray[np.float32]:
    return np.concatenate([one.float().cpu().numpy().ravel() for one in tensors])


def _unit(tensors: Sequence[torch.Tensor]) -> npt.NDArray[np.float32]:
    """Return all of them in a row, at length 1."""
    flat = _flat(tensors)
    return flat / np.float32(np.linalg.norm(flat.astype(np.float64)))


LESS.fitted = FittedLESS
