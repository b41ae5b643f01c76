"""Gradient scoring beside other packages that see each document's gradient, on the same batches in the same run.

    python benchmarks/gradients_peers.py [the options of gradients.py]

Models, batches and the training step are those of gradients.py. Peers that are not installed are left out; LogIX says
that it wants Python before 3.11 and runs all the same: `pip install --no-deps --ignore-requires-python logix-ai`.

What each peer does here is its own inner loop over the same padded rows, on the layers that dvsel takes (all linear
ones of the blocks), with weights frozen wherever the peer allows it, and in memory:

- LogIX: its LoRA layers and hooks log each document's projected gradient.
- bergson: its collector projects each document's gradient from both sides, and keeps it in memory. It feeds each
  document's last token too.
- dattri: its LoGra attributor caches each document's projected gradient, without a Hessian.
- kronfluence: pairwise scores of the documents with one query whose gradient is there, whole or cut to a rank.

dvsel ends with scores. So does kronfluence; the others end with projected gradients, which a query is yet to meet.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from gradients import Task, Training, job, run

OURS = ("rank 16", "rank 64", "rank 16, 5 targets")


def losses(network: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The summed losses of a batch."""
    logits = network(input_ids=ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


def linear_names(network: Any) -> list[str]:
    """The linear layers of a model but its head."""
    head = network.get_output_embeddings()
    return [
        name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear) and module is not head
    ]


def frozen(network: Any) -> Any:
    """The model with its embedding alone wanting gradients, where the graph then begins."""
    network.requires_grad_(False)
    network.get_input_embeddings().requires_grad_(True)
    return network


class Logix:
    """Logging of per-document gradients through LoRA layers (Choe et al. 2024, LoGra)."""

    def __init__(self, training: Training, rank: int) -> None:
        from logix import LogIX
        from logix.config import LoRAConfig

        self.network, self.batches = training.network, training.batches
        self.folder = tempfile.TemporaryDirectory()
        settings = Path(self.folder.name) / "settings.yaml"
        settings.write_text(f"root_dir: {self.folder.name}\n")
        self.logix = LogIX("speed", str(settings))
        self.logix.watch(self.network, name_filter=linear_names(self.network))
        weight = self.network.get_input_embeddings().weight
        self.logix.add_lora(lora_config=LoRAConfig(rank=rank))
        self.network.to(weight)
        self.logix.setup({"grad": ["log"]})

    def step(self) -> None:
        for number, (ids, labels) in enumerate(self.batches):
            with self.logix(data_id=[f"{number}-{row}" for row in range(len(ids))]):
                losses(self.network, ids, labels).backward()  # type: ignore[no-untyped-call]
            self.network.zero_grad(set_to_none=True)


class Bergson:
    """Collection of projected gradients in memory."""

    def __init__(self, training: Training, rank: int) -> None:
        from bergson.config import IndexConfig
        from datasets import Dataset

        self.network = frozen(training.network)
        documents = [one for rows in training.documents for one in rows]
        ends = torch.tensor([len(rows) for rows in training.documents]).cumsum(0).tolist()
        self.batches = [list(range(end - len(rows), end)) for rows, end in zip(training.documents, ends, strict=True)]
        self.data = Dataset.from_dict({"input_ids": documents, "length": [len(one) for one in documents]})
        self.folder = tempfile.TemporaryDirectory()
        self.settings = IndexConfig(run_path=f"{self.folder.name}/index", projection_dim=rank, loss_reduction="mean")
        self.settings.partial_run_path.mkdir(parents=True)
        self.rank = rank

    def step(self) -> None:
        from bergson.collector.collector import CollectorComputer
        from bergson.collector.in_memory_collector import InMemoryCollector
        from bergson.gradients import GradientProcessor

        collector = InMemoryCollector(
            model=self.network.base_model,
            data=self.data,
            cfg=self.settings,
            processor=GradientProcessor(projection_dim=self.rank),
        )
        CollectorComputer(
            self.network, self.data, collector=collector, batches=self.batches, cfg=self.settings
        ).run_with_collector_hooks()


class Dattri:
    """LoGra's cache of projected gradients."""

    def __init__(self, training: Training, rank: int) -> None:
        from dattri.algorithm.logra import LoGraAttributor
        from dattri.task import AttributionTask

        network = frozen(training.network)
        task = AttributionTask(
            loss_func=lambda network, batch, device: losses(network, *batch.values()),  # noqa: ARG005  (as it calls it)
            model=network,
            checkpoints=network.state_dict(),
        )
        self.folder = tempfile.TemporaryDirectory()
        self.loader = Loader(training.batches)
        self.attributor = LoGraAttributor(
            task,
            layer_names=linear_names(network),
            hessian="Identity",
            device=str(network.device),
            proj_dim=rank * rank,
            cache_dir=self.folder.name,
        )

    def step(self) -> None:
        self.attributor.cache(self.loader)


class Loader:
    """Batches that are there already, with what dattri looks at in torch's DataLoader."""

    def __init__(self, batches: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.batches = batches
        self.dataset = self.sampler = [row for ids, _ in batches for row in ids]
        self.batch_size = len(batches[0][0])

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return ({"input_ids": ids, "labels": labels} for ids, labels in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Kronfluence:
    """Its modules in the mode for pairwise scores, with one query. rank: 0 for a whole query gradient."""

    def __init__(self, training: Training, rank: int) -> None:
        from kronfluence import ScoreArguments
        from kronfluence.module import TrackedModule
        from kronfluence.module.tracked_module import ModuleMode
        from kronfluence.module.utils import wrap_tracked_modules
        from kronfluence.utils import constants

        self.batches = training.batches
        names = linear_names(training.network)
        task = SimpleNamespace(
            get_influence_tracked_modules=lambda: names, enable_post_process_per_sample_gradient=False
        )
        self.network = wrap_tracked_modules(training.network.requires_grad_(False), task)
        self.modules = [module for module in self.network.modules() if isinstance(module, TrackedModule)]
        settings = ScoreArguments(score_dtype=training.network.dtype)
        for module in self.modules:
            module.update_score_args(settings)
            module.set_mode(ModuleMode.PAIRWISE_SCORE)
            query = self._query(module.original_module, rank)
            module.set_factor(constants.ACCUMULATED_PRECONDITIONED_GRADIENT_NAME, query)
        self.found = constants.PAIRWISE_SCORE_MATRIX_NAME

    @staticmethod
    def _query(layer: torch.nn.Linear, rank: int) -> torch.Tensor | list[torch.Tensor]:
        inputs = layer.in_features + (layer.bias is not None)
        if not rank:
            return layer.weight.new_empty(1, layer.out_features, inputs).normal_()
        left, right = layer.weight.new_empty(1, layer.out_features, rank), layer.weight.new_empty(1, rank, inputs)
        return [left.normal_(), right.normal_()]

    def step(self) -> None:
        for batch in self.batches:
            losses(self.network, *batch).backward()  # type: ignore[no-untyped-call]
            torch.stack([module.get_factor(self.found) for module in self.modules]).sum(0)
            for module in self.modules:
                module.accumulate_iterations()


PEERS: dict[str, tuple[str, Callable[[Training, int], Any], int]] = {
    "LogIX, rank 16": ("logix", Logix, 16),
    "LogIX, rank 64": ("logix", Logix, 64),
    "bergson, rank 16": ("bergson", Bergson, 16),
    "bergson, rank 64": ("bergson", Bergson, 64),
    "dattri LoGra, rank 16": ("dattri", Dattri, 16),
    "dattri LoGra, rank 64": ("dattri", Dattri, 64),
    "kronfluence, whole": ("kronfluence", Kronfluence, 0),
    "kronfluence, rank 16": ("kronfluence", Kronfluence, 16),
}


def main() -> None:
    there = [name for name, (package, *_) in PEERS.items() if importlib.util.find_spec(package)]
    run(__doc__ or "", [*OURS, *there], job_or_peer)


def job_or_peer(kind: str, task: Task) -> Callable[[], None]:
    """What is measured under this name."""
    if kind not in PEERS:
        return job(kind, task)
    logging.disable()
    _, make, rank = PEERS[kind]
    return quiet(quiet(lambda: make(Training(task), rank))().step)


def quiet(work: Callable[[], Any]) -> Callable[[], Any]:
    """The same without progress bars and warnings."""

    def run() -> Any:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return work()

    return run


if __name__ == "__main__":
    main()
