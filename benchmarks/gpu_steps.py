"""The steps of `gpu.py`: generators of results, the most wanted first."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.util
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_checks
import gradients_gpu
import numpy as np
import orjson
import torch
import transformers
from gradients_gpu import SHAPES, Setting, Work, jobs, measured
from measure import machine
from perplexity import Plain

import checkout
from dvsel.commands import demo
from dvsel.documents.columns import Batch
from dvsel.embeddings import EmbedderOptions
from dvsel.embeddings.encoder import Embedder
from dvsel.gradients import curvature
from dvsel.gradients.moments import Basis, Factors, FactorSums, SquareSums
from dvsel.language import Documents
from dvsel.language.models import load, release
from dvsel.language.token_losses import LossMeter
from dvsel.runs import fitted_files
from gpu import FAILED, Result, Step
from gradients import train

WINDOW = 2048
ENCODED = 512  # tokens of a text that an encoder reads
DAMPING = 0.1
_LEAST = 0.2  # of a run's time, that twice its documents must take for their rate to be read off
FIRST = ("training step", "rank 16", "rank 64")  # of the kernel's rows, for every model before the others


@dataclass(frozen=True)
class Bench:
    """The device, and the models and texts to measure with.

    setting: of gradients_gpu. kernels: models and the length of documents. losses, ends: models. fits: models, blocks
    and length. texts: of documents; the first `documents` of them where a run takes long. folder: for models and pools,
    gone at the end.
    """

    machine: str
    folder: Path
    setting: Setting
    kernels: Sequence[tuple[str, int]]
    losses: str
    ends: Sequence[str]
    fits: Sequence[tuple[str, str, int]]
    texts: Sequence[str]
    documents: int

    @property
    def device(self) -> str:
        return self.setting.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision that `--precision auto` takes here."""
        return torch.bfloat16 if self.device == "cuda" else torch.float32


@contextlib.contextmanager
def bench(cpu: bool, peak: float | None) -> Iterator[Bench]:
    """Make the models and texts to measure with; on a CPU, tiny ones."""
    if not (cpu or torch.cuda.is_available()):
        sys.exit("benchmarks.gpu: torch finds no GPU; run it where there is one, or rehearse it with --cpu")
    if cpu and torch.cuda.is_available():
        sys.exit("benchmarks.gpu: --cpu on a machine with a GPU; hide it with CUDA_VISIBLE_DEVICES=")
    sys.path[:0] = checkout.entry_points()
    with tempfile.TemporaryDirectory(prefix="dvsel-gpu-") as folder:
        texts = _texts(Path(folder) / "demo")
        yield _on_cpu(Path(folder), peak, texts) if cpu else _on_gpu(Path(folder), peak, texts)


def _on_cpu(folder: Path, peak: float | None, texts: list[str]) -> Bench:
    torch.set_num_threads(1)
    setting = Setting("cpu", peak and peak * 1e12, 256, 512, 1)
    said = f"rehearsal on the CPU, tiny models, no measurement: {machine()}"
    return Bench(said, folder, setting, [("tiny", 64)], "tiny", ["tiny"], [("tiny", "all", 64)], texts[:200], 60)


def _on_gpu(folder: Path, peak: float | None, texts: list[str]) -> Bench:
    setting = Setting("cuda", gradients_gpu.peak(peak), 16384, 65536, 3)
    known = f"peak {setting.peak / 1e12:,.0f} TFLOP/s in bf16" if setting.peak else "peak not known: pass --peak"
    held = torch.cuda.get_device_properties(0).total_memory / 2**30
    said = (
        f"{torch.cuda.get_device_name()}, {held:.0f} GiB, {known}, torch {torch.__version__} (CUDA "
        f"{torch.version.cuda}), transformers {transformers.__version__}, {platform.node()}: {machine()}"
    )
    kernels = [("1.3B", 2048), ("8B", 2048), ("350M", 1024), ("125M", 1024), ("3B", 2048), ("1.3B", 1024)]
    fits = [("125M", "all", 1024), ("1.3B", "last", 2048), ("350M", "all", 1024), ("8B", "last", 2048)]
    return Bench(said, folder, setting, kernels, "1.3B", ["350M", "1.3B"], fits, texts[:3000], 1200)


def _texts(folder: Path) -> list[str]:
    """The real text that Python carries, in an order that is always the same and mixes its domains."""
    import zstandard

    shards, _ = demo.build(folder)
    lines = [line for shard in shards for line in zstandard.decompress(shard.read_bytes()).splitlines()]
    found = [orjson.loads(line)["text"] for line in lines]
    return [found[row] for row in np.random.default_rng(0).permutation(len(found)) if found[row].strip()]


# --- Correctness. ---


def correctness(bench: Bench) -> Step:
    """The checks of tests/gpu."""
    for number, (name, check) in enumerate(gpu_checks.CHECKS.items()):
        if why := gpu_checks.missing(name, rehearsal=True):
            yield Result("correctness", name, {"result": "not run", "evidence": why})
            continue
        folder = bench.folder / f"check{number}"
        folder.mkdir()
        yield Result("correctness", name, _checked(functools.partial(check, folder)))
        _free()


def _checked(check: Callable[[], str]) -> dict[str, str]:
    try:
        return {"result": "passed", "evidence": check()}
    except Exception as error:  # the other checks are to run all the same
        return {"result": FAILED, "evidence": f"{type(error).__name__}: {error}".splitlines()[0]}


# --- Gradient scoring. ---


def kernel(bench: Bench) -> Step:
    """Yield the rows of `FIRST` for each model, then the others for each, peers included."""
    steps: dict[tuple[str, int], float] = {}
    kinds = jobs()
    for names in (FIRST, [name for name in kinds if name not in FIRST]):
        for shape, length in bench.kernels:
            for kind in names:
                found = measured(shape, length, kinds[kind], bench.setting)
                _free()
                if kind == "training step" and found.rates:
                    steps[shape, length] = statistics.median(found.rates)
                yield Result(
                    "kernel", f"{shape}, {length} tokens, {kind}",
                    _kernel_row(bench, kind, shape, length, found, steps.get((shape, length))),
                )  # fmt: skip


def _kernel_row(
    bench: Bench, kind: str, shape: str, length: int, found: gradients_gpu.Found, step: float | None
) -> dict[str, str]:
    if found.why:
        return {"tokens/s": found.why}
    rate = statistics.median(found.rates)
    return {
        "tokens/s": f"{rate:,.0f}",
        "times a training step": f"{step / rate:.2f}" if step else "",
        "share of peak": _share(bench, rate * gradients_gpu.flops(kind, shape, length)),
        "memory over the model, GB": f"{found.peak / 2**30:.1f}",
        "batch": f"{found.batch:,}",
    }


def _share(bench: Bench, rate: float) -> str:
    """Return a rate, FLOP/s, as a share of the peak; "" where the peak is not known."""
    return f"{rate / bench.setting.peak:.1%}" if bench.setting.peak else ""


# --- Losses and embeddings. ---


def losses(bench: Bench) -> Step:
    """Measure both with the same texts, in batches of as many tokens."""
    folder = _saved(bench, bench.losses)
    texts = _cut(bench.texts[: bench.documents], folder)
    plain, lengths = _by_loop(bench, folder, texts)
    _free()
    name, tokens = f"{bench.losses}, {len(texts):,} documents", sum(lengths)
    flops = sum(length * gradients_gpu.flops("forward", bench.losses, length) for length in lengths)
    yield Result("losses", f"{name}, transformers", _rates(bench, plain, tokens, flops))
    meter = LossMeter(load(str(folder)), batch_tokens=bench.setting.batch_tokens)
    ours = _seconds(bench, lambda: meter.token_losses(texts))
    yield Result("losses", f"{name}, dvsel", _rates(bench, ours, tokens, flops, plain))


def _by_loop(bench: Bench, folder: Path, texts: list[str]) -> tuple[float, list[int]]:
    """Seconds of the plain loop, and how many tokens of each text it predicts."""
    loop = Plain(str(folder), bench.setting.batch_tokens, bench.device, bench.dtype)
    return _seconds(bench, lambda: loop.losses(texts)), [len(one) - 1 for one in loop.tokenizer(texts)["input_ids"]]


def embeddings(bench: Bench) -> Step:
    """The peer has batches of so many texts, sorted by length; the best of its sizes is what counts."""
    if importlib.util.find_spec("sentence_transformers") is None:
        yield Result("embeddings", "sentence-transformers", {"tokens/s": "not installed, so nothing to compare with"})
        return
    folder, texts = _encoder(bench), list(bench.texts)
    config, best, lengths = transformers.AutoConfig.from_pretrained(folder), math.inf, _lengths(folder, texts)
    name, flops = f"BERT of {config.hidden_size}, {len(texts):,} documents", _encoder_flops(config, lengths)
    for size in (32, 128, 512):
        took = _by_peer(bench, folder, texts, size)
        _free()
        best = min(best, took)
        row = _rates(bench, took, sum(lengths), flops)
        yield Result("embeddings", f"{name}, sentence-transformers, {size} at a time", row)
    embedder = Embedder(EmbedderOptions(model=str(folder)))
    ours = _seconds(bench, lambda: embedder.embed(texts))
    yield Result("embeddings", f"{name}, dvsel", _rates(bench, ours, sum(lengths), flops, best))


def _lengths(folder: Path, texts: list[str]) -> list[int]:
    """Tokens of each text that an encoder reads."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return [min(len(one), ENCODED) for one in tokenizer(texts)["input_ids"]]


def _encoder_flops(config: Any, lengths: list[int]) -> float:
    """FLOPs of encoding texts: two for each weight and token, and attention over all pairs of tokens."""
    width, layers = config.hidden_size, config.num_hidden_layers
    weights = layers * (4 * width + 2 * config.intermediate_size) * width
    return float(sum(2 * weights * one + 4 * one * one * width * layers for one in lengths))


def _by_peer(bench: Bench, folder: Path, texts: list[str], size: int) -> float:
    """Seconds of `encode` in batches of so many texts."""
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(folder), device=bench.device, model_kwargs={"dtype": bench.dtype})
    return _seconds(bench, lambda: peer.encode(texts, batch_size=size, show_progress_bar=False))


def _rates(bench: Bench, seconds: float, tokens: int, flops: float, peer: float | None = None) -> dict[str, str]:
    """Return a row. peer: seconds of the peer, if this is compared with one."""
    return {
        "tokens/s": f"{tokens / seconds:,.0f}",
        "times the peer": f"{peer / seconds:.2f}" if peer else "",
        "share of peak": _share(bench, flops / seconds),
    }


def _saved(bench: Bench, shape: str) -> Path:
    """Save a model of this shape with a tokenizer of real text, once."""
    folder = bench.folder / shape
    if not folder.exists():
        tokenizer = train(bench.texts[:300])
        tokenizer.pad_token = "<s>"
        network = gradients_gpu.network(shape, WINDOW, bench.device)
        network.resize_token_embeddings(max(len(tokenizer), SHAPES[shape][5]), mean_resizing=False)
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        del network
        _free()
    return folder


def _encoder(bench: Bench) -> Path:
    """Save an encoder of BERT's base shape as sentence-transformers does it."""
    from sentence_transformers import SentenceTransformer

    models: Any = importlib.import_module("sentence_transformers.models")  # not declared to type checkers
    tokenizer = train(bench.texts[:300])
    tokenizer.pad_token = "<s>"
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.BertConfig(vocab_size=len(tokenizer), **({} if bench.device == "cuda" else small))
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(bench.folder / "bert")
    tokenizer.save_pretrained(bench.folder / "bert")
    parts = [models.Transformer(str(bench.folder / "bert"), max_seq_length=ENCODED), models.Pooling(config.hidden_size)]
    SentenceTransformer(modules=parts).save(str(bench.folder / "encoder"))
    return bench.folder / "encoder"


def _cut(texts: Sequence[str], folder: Path) -> list[str]:
    """The texts, cut so that each fits the window, since a plain loop has no windows."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer([text[: 8 * WINDOW] for text in texts], add_special_tokens=False)["input_ids"]
    return [tokenizer.decode(one[: WINDOW - 64]) for one in ids]


# --- From JSONL to scores. ---


def end_to_end(bench: Bench) -> Step:
    """Compare the time that three times the pool takes longer with the kernel's; so no start is counted."""
    for shape in bench.ends:
        folder, texts = _saved(bench, shape), list(bench.texts[: bench.documents])
        pools = [_pool(bench.folder / f"pool{times}.jsonl", texts, times) for times in (1, 3)]
        target, fitted = _pool(bench.folder / "target.jsonl", texts[:50], 1), bench.folder / f"{shape}.fitted"
        _dvsel("fit", "influence", "--target", target, "--model", folder, "--preconditioner", "none", "-o", fitted)
        short, long = (_scored(pool, fitted) for pool in pools)
        rate, tokens = _kernel_rate(bench, fitted, texts)
        name = f"{shape}, {len(texts):,} and {3 * len(texts):,} documents"
        yield Result("end-to-end", name, _end_row(2 * tokens, short, long, rate))
        _free()


def _end_row(tokens: int, short: float, long: float, kernel: float) -> dict[str, str]:
    """Return a row. tokens: read by the longer run alone; no rate is told where the start hides it."""
    seconds = {"the kernel's": f"{kernel:,.0f}", "seconds": f"{short:.1f} and {long:.1f}"}
    if long - short < _LEAST * short:
        return {"tokens/s": "hidden by the start", "share": "", **seconds}
    rate = tokens / (long - short)
    return {"tokens/s": f"{rate:,.0f}", "share": f"{rate / kernel:.0%}", **seconds}


def _kernel_rate(bench: Bench, file: Path, texts: list[str]) -> tuple[float, int]:
    """Tokens a second of the same scorer on documents that were read beforehand, and how many tokens they are."""
    fitted: Any = fitted_files.load(str(file))[0]
    (meter,), documents = fitted.meters, Batch.of(texts)
    read = meter.objective.read(Documents(texts))
    meter.objective.read = lambda documents: read  # noqa: ARG005
    tokens = int(read.scored.sum())
    return tokens / _seconds(bench, lambda: fitted.score(documents)), tokens


def _pool(path: Path, texts: Sequence[str], times: int) -> Path:
    lines = [orjson.dumps({"id": f"{row}-{time}", "text": text}) + b"\n"
             for time in range(times) for row, text in enumerate(texts)]  # fmt: skip
    path.write_bytes(b"".join(lines))
    return path


def _dvsel(*words: object) -> float:
    """Run a command to its end; returns seconds."""
    begin = time.perf_counter()
    argv = [sys.executable, "-m", "dvsel", *map(str, words), "--quiet"]
    subprocess.run(argv, env=checkout.environment(), check=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - begin


def _scored(pool: Path, fitted: Path) -> float:
    """Seconds of scoring a pool."""
    return _dvsel(
        "score", "influence", pool, "--fitted", fitted, "--workers", 1, "--overwrite", "-o", pool.with_suffix("")
    )


# --- The fit. ---


def fit(bench: Bench) -> Step:
    """Measure each part of a fit by itself, beside a training step on as many documents."""
    for shape, wanted, length in bench.fits:
        step = measured(shape, length, gradients_gpu.training, bench.setting)
        _free()
        yield from _fit_of(bench, shape, wanted, length, step)
        _free()


def _fit_of(bench: Bench, shape: str, wanted: str, length: int, step: gradients_gpu.Found) -> Step:
    work = Work(shape, length, step.batch or length, bench.setting)
    meter = gradients_gpu.meter_for(work, wanted)
    documents = Documents([""] * sum(map(len, work.documents)))
    name = f"{shape}, {wanted} of the blocks, {len(meter.layers)} layers, {length} tokens"
    trained = work.tokens / statistics.median(step.rates) if step.rates else math.nan
    sums = FactorSums(meter.layers)
    took = _seconds(bench, lambda: meter.run(documents, sums, "sum"), sums.reset)
    yield Result("fit", f"{name}, factors of K-FAC", _fit_row(bench, took, trained))
    _reset(bench)
    begin, bases = time.perf_counter(), [_bases(one) for one in sums.factors]
    _wait(bench)
    took = time.perf_counter() - begin  # once: it may be minutes, and every layer is a repetition
    yield Result("fit", f"{name}, eigenvectors", {"seconds": f"{took:.2f}", "memory, GB": _memory(bench)})
    squares = SquareSums(meter.layers, bases)
    took = _seconds(bench, lambda: meter.run(documents, squares, "sum"), squares.reset)
    yield Result("fit", f"{name}, eigenvalues of EK-FAC", _fit_row(bench, took, trained))


def _bases(factors: Factors) -> tuple[Basis, Basis]:
    """Eigenvectors of both sides, in the precision of sums."""
    metric = curvature.kfac(factors, DAMPING)
    left, right = (None if side.basis is None else side.basis.float() for side in (metric.outputs, metric.inputs))
    return left, right


def _fit_row(bench: Bench, took: float, trained: float) -> dict[str, str]:
    times = "training does not fit" if math.isnan(trained) else f"{took / trained:.2f}"
    return {"seconds": f"{took:.2f}", "times a training step": times, "memory, GB": _memory(bench)}


def _memory(bench: Bench) -> str:
    """The most that was held since `_reset`."""
    return f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if bench.device == "cuda" else ""


# --- Time and memory. ---


def _seconds(bench: Bench, work: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """The median of some runs, after one for what is made once; `before` runs ahead of each, untimed."""
    _reset(bench)
    found = []
    for _ in range(bench.setting.repeats + 1):
        before()
        _wait(bench)
        begin = time.perf_counter()
        work()
        _wait(bench)
        found.append(time.perf_counter() - begin)
    return statistics.median(found[1:])


def _reset(bench: Bench) -> None:
    if bench.device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _wait(bench: Bench) -> None:
    if bench.device == "cuda":
        torch.cuda.synchronize()


def _free() -> None:
    """Give back what nobody holds."""
    gc.collect()
    release()


STEPS: dict[str, Callable[[Bench], Step]] = {
    "correctness": correctness,
    "kernel": kernel,
    "losses": losses,
    "embeddings": embeddings,
    "end-to-end": end_to_end,
    "fit": fit,
}
