"""Gradient scoring beside a plain training step, forward and backward, on the same batches: CPU time and memory.

    python benchmarks/gradients.py [--pool FILE ...] [--length 128] [--tokens 4096] [--batch-tokens 2048] [--repeats 3]

Two models with random weights and a vocabulary of 2,048, in fp32 on one core: a GPT-NeoX of 4 layers and 256
dimensions, and a Llama of 2 layers and 768. The training step is what one writes by hand: all weights want gradients,
the model's own logits, cross entropy over the batch, `backward`; no optimizer. Both get the same rows of token ids in
the same batches, so the same padding. Scoring is all of `GradientMeter.run` but the tokenizer. Runs alternate.

Attention is the same work for both, so long documents bring the ratio nearer to 1.

Memory is the most that a process of its own holds, over what it held when all was ready (on Linux).
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpora import corpus, parser_of
from measure import alternate, here, machine, ratio, spread, table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from dvsel.gradients.compare import Scores, comparison
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import Layer, choose
from dvsel.gradients.low_rank import Direction
from dvsel.language import Documents
from dvsel.language.models import load
from dvsel.language.windows import cut

VOCABULARY = 2048
WINDOW = 512
SHARED = {"vocab_size": VOCABULARY, "max_position_embeddings": WINDOW, "bos_token_id": 0, "eos_token_id": 0}
MODELS: dict[str, Callable[[], Any]] = {
    "NeoX, 4 layers of 256": lambda: GPTNeoXForCausalLM(
        GPTNeoXConfig(hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=8, **SHARED)
    ),
    "Llama, 2 layers of 768": lambda: LlamaForCausalLM(
        LlamaConfig(hidden_size=768, intermediate_size=2048, num_hidden_layers=2, num_attention_heads=12, **SHARED)
    ),
}
# Name: rank (0: whole), targets, layers, whether norms are taken too.
SCORINGS: dict[str, tuple[int, int, str, bool]] = {
    "rank 16": (16, 1, "all", False),
    "rank 16, 5 targets": (16, 5, "all", False),
    "rank 32": (32, 1, "all", False),
    "rank 64": (64, 1, "all", False),
    "whole": (0, 1, "all", False),
    "rank 16, cosine": (16, 1, "all", True),
    "rank 16, upper half": (16, 1, "upper-half", False),
    "rank 16, last layer": (16, 1, "last", False),
}


@dataclass(frozen=True)
class Task:
    """What all have to do: documents through the model in a folder, in batches of at most so many tokens."""

    folder: str
    texts: Sequence[str]
    batch_tokens: int


Job = Callable[[str, Task], Callable[[], None]]
"""Gets all ready for what has this name, and returns what is to be measured."""


def main() -> None:
    run(__doc__ or "", SCORINGS, job)


def run(about: str, kinds: Iterable[str], job: Job) -> None:
    """The command line: compare a training step with these kinds on each model."""
    parser = parser_of(about, repeats=3)
    parser.add_argument("--length", type=int, default=128, help="tokens that documents are cut to")
    parser.add_argument("--tokens", type=int, default=4096, help="text to score")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(kinds), help="fewer of the comparisons")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with corpus(options) as documents, tempfile.TemporaryDirectory() as folder:
        texts = [document["text"] for document in documents.documents]
        tokenizer = train(texts)
        some = sample(texts, tokenizer, options.tokens, options.length)
        print(machine())
        for name, make in MODELS.items():
            build(make, tokenizer, Path(folder) / name)
            task = Task(str(Path(folder) / name), some, options.batch_tokens)
            compare(name, task, options.only or list(kinds), job, options.repeats)


def train(texts: Sequence[str]) -> Any:
    """A byte-level BPE trained on the texts."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<s>"], show_progress=False)
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="<s>")


def sample(texts: Sequence[str], tokenizer: Any, tokens: int, length: int) -> list[str]:
    """Documents of about that many tokens in all, drawn at random, each cut to about `length`."""
    chosen: list[str] = []
    for row in np.random.default_rng(0).permutation(len(texts)).tolist():
        ids = tokenizer(texts[row][: 16 * length])["input_ids"][:length]
        chosen.append(tokenizer.decode(ids))  # whose tokens may be a few more or fewer
        tokens -= len(ids)
        if tokens <= 0:
            break
    return chosen


def build(make: Callable[[], Any], tokenizer: Any, folder: Path) -> None:
    """Save the model with random weights."""
    torch.manual_seed(0)
    make().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Training:
    """The step by hand.

    documents: their token ids, by batch. batches: inputs and labels, int64 (rows, length). tokens: to be predicted.
    """

    def __init__(self, task: Task) -> None:
        self.network = AutoModelForCausalLM.from_pretrained(task.folder)
        tokenizer = AutoTokenizer.from_pretrained(task.folder)
        ids = sorted(([0, *tokenizer(text)["input_ids"]] for text in task.texts), key=len, reverse=True)
        lengths = np.array([len(one) - 1 for one in ids])
        self.documents: list[list[list[int]]] = []
        first = 0
        while first < len(ids):
            last = cut(lengths, first, task.batch_tokens)
            self.documents.append(ids[first:last])
            first = last
        self.batches = [self._padded(rows) for rows in self.documents]
        self.tokens = int(lengths.sum())

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and labels, one position on."""
        length = max(map(len, rows)) - 1
        ids = torch.tensor([[*row[:-1], *[0] * (length + 1 - len(row))] for row in rows])
        labels = torch.tensor([[*row[1:], *[-100] * (length + 1 - len(row))] for row in rows])
        return ids, labels

    def step(self) -> None:
        """Forward and backward over all batches."""
        for ids, labels in self.batches:
            logits = self.network(input_ids=ids, use_cache=False).logits
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()  # type: ignore[no-untyped-call]
            self.network.zero_grad(set_to_none=True)

    @torch.inference_mode()
    def forward(self) -> None:
        """Forward alone."""
        for ids, _ in self.batches:
            self.network(input_ids=ids, use_cache=False)


class Scoring:
    """dvsel, with random directions: their values change no cost."""

    def __init__(self, name: str, task: Task) -> None:
        rank, groups, wanted, self.norms = SCORINGS[name]
        model = load(task.folder, "fp32")
        layers = choose(model, wanted)
        self.meter = GradientMeter(model, layers, batch_tokens=task.batch_tokens)
        self.documents, self.groups = Documents(task.texts), groups
        read = self.meter.objective.read(self.documents)  # beforehand, as for the training step
        self.meter.objective.read = lambda documents: read  # type: ignore[method-assign]  # noqa: ARG005
        self.comparisons = [comparison(random_directions(layer, rank, groups)) for layer in layers]

    def step(self) -> None:
        """The scores of all documents."""
        scores = Scores(self.comparisons, len(self.documents), self.groups, "cpu", self.norms)
        self.meter.run(self.documents, scores, "mean")


def random_directions(layer: Layer, rank: int, groups: int) -> list[Direction]:
    size = rank or min(layer.outputs, layer.inputs)
    return [Direction(torch.randn(layer.outputs, size), torch.randn(layer.inputs, size)) for _ in range(groups)]


def job(kind: str, task: Task) -> Callable[[], None]:
    """dvsel, and what it is compared with."""
    if kind in SCORINGS:
        return Scoring(kind, task).step
    training = Training(task)
    return training.step if kind == "training step" else training.forward


def memory(work: Callable[[], None]) -> float:
    """MB that a process, a copy of this one, takes at most over what it has, for running this once."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(_memory(work)))
    child.start()
    sender.close()  # so that a child that dies ends the wait
    found: float = receiver.recv()
    child.join()
    return found


def _memory(work: Callable[[], None]) -> float:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what loading held is not to be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    """A line of Linux's account of this process, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def compare(name: str, task: Task, kinds: Sequence[str], job: Job, repeats: int) -> None:
    """Run all in turn, and print their costs beside the training step's."""
    kinds = ["training step", "forward", *kinds]
    work = {kind: job(kind, task) for kind in kinds}
    peaks = {kind: memory(one) for kind, one in work.items()}  # before any has run here
    for one in work.values():
        one()
    rounds = alternate({kind: partial(here, one) for kind, one in work.items()}, repeats)
    tokens = Training(task).tokens
    table(
        f"{name}: {len(task.texts)} documents, {tokens:,} tokens, batches of {task.batch_tokens:,}; {repeats} rounds, "
        "min / median / max",
        ["", "times a training step, CPU", "tokens a CPU second", "peak memory, MB"],
        [
            [
                kind,
                spread(ratio(rounds, kind, "training step", "cpu")),
                spread((tokens / cost.cpu for cost in rounds[kind]), 0),
                f"{peaks[kind]:,.0f}",
            ]
            for kind in kinds
        ],
    )


if __name__ == "__main__":
    main()
