"""Gradient scoring on a GPU, in bf16, beside a training step: tokens a second, share of the GPU's peak, peak memory.

    python benchmarks/gradients_gpu.py [--models 125M 350M 1.3B 3B 8B] [--lengths 1024 2048] [--repeats 3]
    python benchmarks/gradients_gpu.py --cpu    # whether this script works, on a tiny model

Models are Llama-shaped, with random weights made on the GPU; documents are random tokens. The training step is forward
and backward with all weights wanting gradients and transformers' own loss, no optimizer. Peers of gradients_peers.py
run where they are installed. Each gets the largest batch that the memory holds, at most `--batch-tokens`.

FLOPs are those of the model, by token, with N weights in its linear layers, the head included:

    forward         2 N         + A     where A = 2 * length * width * layers: attention, causal
    training step   6 N         + 3 A
    scoring         2 N + 2 N'  + 3 A'  N': the weights from the lowest scored layer up (N where all are scored);
                                        A' = A/3 + 2/3 of the attention there

What else a run does counts as time alone: projections, softmax, norms. Target: 45% of the GPU's dense bf16 peak.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gradients_peers import PEERS, quiet
from measure import spread, table
from transformers import LlamaConfig, LlamaForCausalLM

from dvsel.errors import Notice, UserError
from dvsel.gradients.compare import Scores, comparison
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import choose
from dvsel.gradients.objective import Read
from dvsel.language import Documents
from dvsel.language.cards import Card
from dvsel.language.models import Model
from gradients import SCORINGS, random_directions

TARGET = 0.45
# Dense bf16, TFLOP/s, as NVIDIA states it; the first name that the device's contains.
PEAKS = {
    "B200": 2250, "GH200": 989, "H200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "A100": 312,
    "L40S": 362, "RTX A6000": 155, "A10G": 70, "A10": 125, "L4": 121, "4090": 165, "3090": 71,
}  # fmt: skip
# Width, inner width, layers, heads, heads of keys and values, vocabulary, whether embeddings are the head.
SHAPES: dict[str, tuple[int, int, int, int, int, int, bool]] = {
    "tiny": (64, 176, 2, 4, 4, 512, False),
    "125M": (768, 2048, 12, 12, 12, 32_000, False),
    "350M": (1024, 2816, 24, 16, 16, 32_000, False),
    "1.3B": (2048, 5504, 24, 16, 16, 32_000, False),
    "3B": (3072, 8192, 28, 24, 8, 128_256, True),
    "8B": (4096, 14336, 32, 32, 8, 128_256, False),
}
OURS = ("rank 16", "rank 32", "rank 64", "rank 16, 5 targets", "rank 16, upper half")


@dataclass(frozen=True)
class Setting:
    """device: of torch. peak: of the device, FLOP/s, or None. tokens: to run through a model, in all."""

    device: str
    peak: float | None
    batch_tokens: int
    tokens: int
    repeats: int


class Work:
    """A model and documents for it: batches of rows of one length.

    documents: token ids by batch. batches: inputs and labels, int64 (rows, length).
    """

    def __init__(self, shape: str, length: int, batch_tokens: int, setting: Setting) -> None:
        self.length, self.batch_tokens, self.device = length, batch_tokens, setting.device
        self.network = network(shape, length, setting.device)
        rows = max(batch_tokens // length, 1)
        count = max(setting.tokens // (rows * length), 1)
        torch.manual_seed(0)
        ids = torch.randint(self.network.config.vocab_size, (count, rows, length + 1))
        self.documents: list[list[list[int]]] = ids.tolist()
        ids = ids.to(setting.device)
        self.batches = [(one[:, :-1].contiguous(), one[:, 1:].contiguous()) for one in ids]
        self.tokens = count * rows * length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["125M", "350M", "1.3B", "3B", "8B"], choices=list(SHAPES))
    parser.add_argument("--lengths", nargs="+", type=int, default=[1024, 2048], help="tokens of a document")
    parser.add_argument("--batch-tokens", type=int, default=16384)
    parser.add_argument("--tokens", type=int, default=65536, help="tokens to run through a model")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak", type=float, help="the device's dense bf16 peak, TFLOP/s, where it is not known here")
    parser.add_argument("--cpu", action="store_true", help="run this script's own code, on a tiny model")
    options = parser.parse_args()
    if options.cpu:
        setting = Setting("cpu", options.peak and options.peak * 1e12, 256, 512, 1)
        torch.set_num_threads(1)
        compare("tiny", 64, setting)
        return
    if not torch.cuda.is_available():
        sys.exit("gradients_gpu: torch finds no GPU; run it where there is one, or try the script out with --cpu")
    setting = Setting("cuda", peak(options.peak), options.batch_tokens, options.tokens, options.repeats)
    for shape in options.models:
        for length in options.lengths:
            compare(shape, length, setting)


def peak(stated: float | None) -> float | None:
    """The device's dense bf16 peak, FLOP/s."""
    name = torch.cuda.get_device_name()
    known = stated or next((found for part, found in PEAKS.items() if part in name), None)
    return known and known * 1e12


def network(shape: str, length: int, device: str) -> Any:
    """A model with random weights in bf16."""
    width, inner, layers, heads, shared_heads, vocabulary, tied = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=shared_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        max_position_embeddings=length,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def flops(kind: str, shape: str, length: int) -> float:
    """Of a token, as above."""
    width, inner, layers, heads, shared_heads, vocabulary, _ = SHAPES[shape]
    block = 2 * width * width * (1 + shared_heads / heads) + 3 * width * inner
    weights, attention = layers * block + vocabulary * width, 2.0 * length * width * layers
    if kind == "forward":
        return 2 * weights + attention
    if kind == "training step":
        return 6 * weights + 3 * attention
    share = 0.5 if "upper half" in kind else 1.0
    return 2 * weights + 2 * (share * layers * block + vocabulary * width) + (1 + 2 * share) * attention


def forward(work: Work) -> Callable[[], None]:
    @torch.inference_mode()
    def run() -> None:
        for ids, _ in work.batches:
            work.network(input_ids=ids, use_cache=False)

    return run


def training(work: Work) -> Callable[[], None]:
    def run() -> None:
        for ids, labels in work.batches:
            work.network(input_ids=ids, labels=labels, shift_labels=labels, use_cache=False).loss.backward()
            work.network.zero_grad(set_to_none=True)

    return run


def meter_for(work: Work, wanted: str) -> GradientMeter:
    """dvsel's meter for the layers that are `wanted`, which reads the documents of `work` whatever it is given."""
    config = work.network.config
    card = Card("random", "", "", False, config, None, work.length, None, b"")
    model = Model(card, work.network, work.device, True, config.vocab_size)
    meter = GradientMeter(model, choose(model, wanted), window=work.length, batch_tokens=work.batch_tokens)
    ids = [np.array(one, np.int64) for rows in work.documents for one in rows]
    scored, labels = np.full(len(ids), work.length, np.int64), np.zeros(0, np.int64)
    read = Read(ids, meter.windows(ids, [0] * len(ids)), scored, labels)
    meter.objective.read = lambda documents: read  # type: ignore[method-assign]  # noqa: ARG005
    return meter


def scoring(kind: str, work: Work) -> Callable[[], None]:
    """dvsel, with random directions."""
    rank, groups, wanted, norms = SCORINGS[kind]
    meter, device, count = meter_for(work, wanted), work.device, sum(map(len, work.documents))
    with torch.device(device):
        comparisons = [comparison(in_bf16(random_directions(layer, rank, groups))) for layer in meter.layers]

    def run() -> None:
        scores = Scores(comparisons, count, groups, device, norms)
        meter.run(Documents([""] * count), scores, "mean")
        scores.products.cpu()

    return run


def in_bf16(directions: list[Any]) -> list[Any]:
    return [type(one)(one.left.bfloat16(), one.right.bfloat16()) for one in directions]


def peer(kind: str, work: Any) -> Callable[[], None]:
    _, make, rank = PEERS[kind]
    return quiet(quiet(lambda: make(work, rank))().step)


def jobs() -> dict[str, Callable[[Work], Callable[[], None]]]:
    there = [name for name, (package, *_) in PEERS.items() if importlib.util.find_spec(package)]
    return {
        "forward": forward,
        "training step": training,
        **{kind: functools.partial(scoring, kind) for kind in OURS},
        **{kind: functools.partial(peer, kind) for kind in there},
    }


@dataclass(frozen=True)
class Found:
    """rates: tokens a second, by round. peak: bytes over what the model takes. batch: tokens. why: of no rates."""

    rates: list[float]
    peak: int = 0
    batch: int = 0
    why: str = ""


def measured(shape: str, length: int, make: Callable[[Work], Callable[[], None]], setting: Setting) -> Found:
    """With the largest batch that fits."""
    batch = setting.batch_tokens
    while batch >= length:
        try:
            with warnings.catch_warnings(action="error", category=Notice):  # dvsel would halve its batch by itself
                return _measured(Work(shape, length, batch, setting), make, setting)
        except (torch.OutOfMemoryError, Notice, UserError):
            batch //= 2
        except Exception as error:  # a peer that cannot do this; the others are to run all the same
            return Found([], why=f"fails: {str(error)[:60]}")
        _release()
    return Found([], why="does not fit")


def _measured(work: Work, make: Callable[[Work], Callable[[], None]], setting: Setting) -> Found:
    gpu = setting.device == "cuda"
    held = torch.cuda.memory_allocated() if gpu else 0
    run = make(work)
    run()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    rates = [work.tokens / seconds for seconds in _timed(run, setting)]
    return Found(rates, torch.cuda.max_memory_allocated() - held if gpu else 0, work.batch_tokens)


def _timed(run: Callable[[], None], setting: Setting) -> Iterator[float]:
    for _ in range(setting.repeats):
        _wait(setting.device)
        begin = time.perf_counter()
        run()
        _wait(setting.device)
        yield time.perf_counter() - begin


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def compare(shape: str, length: int, setting: Setting) -> None:
    """Run all, each with a model of its own, and print what they reach."""
    found = {}
    for kind, make in jobs().items():
        found[kind] = measured(shape, length, make, setting)
        _release()
    device = torch.cuda.get_device_name() if setting.device == "cuda" else "CPU"
    known = f"peak {setting.peak / 1e12:,.0f} TFLOP/s" if setting.peak else "peak not known: pass --peak"
    table(
        f"{shape}, documents of {length:,} tokens, {device}, {known}, target {TARGET:.0%} of it; "
        f"{setting.repeats} rounds, min / median / max",
        ["", "tokens a second", "times a training step", "share of peak", "memory over the model, GB", "batch"],
        [[kind, *row(kind, shape, length, one, found["training step"], setting)] for kind, one in found.items()],
    )


def row(kind: str, shape: str, length: int, one: Found, step: Found, setting: Setting) -> list[str]:
    if one.why:
        return [one.why, "", "", "", ""]
    times = spread(np.median(step.rates) / rate for rate in one.rates) if step.rates else "-"
    share = spread((rate * flops(kind, shape, length) / setting.peak for rate in one.rates), 3) if setting.peak else "-"
    return [spread(one.rates, 0), times, share, f"{one.peak / 2**30:,.1f}", f"{one.batch:,}"]


if __name__ == "__main__":
    main()
