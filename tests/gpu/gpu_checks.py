"""Checks of the GPU path: what `tests/gpu` and `python -m benchmarks.gpu` both run, with or without pytest.

A check takes an empty folder and returns a line of evidence; AssertionError where the evidence is against the GPU.
Results are compared with those of the same model on the CPU in float64, for which nothing is rounded but what
transformers always computes in float32 (rotary angles, an eager softmax); `tests/gradients` holds these to autograd.

Without a GPU the checks rehearse: the models stay on the CPU in float32, and the comparisons are the same. Those of
`NEEDS_CUDA` make no sense there, and all but those of `SHORT` are left to a rehearsal that asks for them.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gpu_commands import commands_agree, interrupted, killed
from gradient_truth import in_precision, random_bases, random_directions

import corpus
import language_models
from dvsel.embeddings import EmbedderOptions
from dvsel.embeddings.encoder import Embedder
from dvsel.errors import Notice, UserError
from dvsel.gradients.compare import Scores, comparison
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import choose
from dvsel.gradients.low_rank import Cut, Direction
from dvsel.gradients.moments import FactorSums, GradientSum, SquareSums
from dvsel.gradients.target_gradient import Curvature, find, mean_gradient
from dvsel.language import Documents
from dvsel.language.models import Model, load, release
from dvsel.language.token_losses import LossMeter
from dvsel.linalg.ranks import spearman

Check = Callable[[Path], str]
Array = npt.NDArray[Any]

EXACT = 1e-5  # float32 beside float64, of the largest
AGAIN = 1e-6  # float32 summed in another order
FITTED = 1e-3  # the same after eigenvectors of float32 sums, whose smallest eigenvalues are the damping
ALIKE = 0.999  # rank correlation of half precision with float32
TEXTS = [text[: 40 + 25 * number] for number, text in enumerate(language_models.TEXTS[:12])]
LABELS = ["good", "bad", "", "fair"] * 3
NAMES = {0: "bad", 1: "fair", 2: "good"}
WINDOW, STRIDE = 32, 20  # of tokens; the longest of TEXTS has several windows


def on_gpu() -> bool:
    """Return True where the checks have a GPU."""
    return torch.cuda.is_available()


def exact(model: Model) -> Model:
    """The model on the CPU, in float64."""
    network = copy.deepcopy(model.network).to("cpu")
    copied: Model = in_precision(dataclasses.replace(model, network=network, device="cpu", autocast=False))
    return copied


def error(found: Any, expected: Any) -> float:
    """The largest difference, as a share of the largest that is expected; infinite where a number is not finite."""
    one, other = (torch.as_tensor(values).detach().to("cpu", torch.float64) for values in (found, expected))
    assert one.shape == other.shape, f"shapes differ: {tuple(one.shape)}, {tuple(other.shape)}"
    share = float((one - other).abs().max() / other.abs().max())
    return share if math.isfinite(share) else math.inf


def near(errors: dict[str, float], bound: float) -> str:
    """The evidence that all errors are within the bound."""
    said = ", ".join(f"{name} {value:.1e}" for name, value in errors.items())
    assert all(value <= bound for value in errors.values()), f"off by more than {bound:.0e}: {said}"
    return f"{said} (at most {bound:.0e})"


# --- Gradients. ---


@dataclass(frozen=True)
class Case:
    """A model, and how documents go through it. adapter: of LoRA. layers: as `choose` takes them."""

    family: str = "llama"
    attention: str = "sdpa"
    task: str = "CausalLM"
    adapter: bool = False
    layers: str = "all"
    packing: bool = False
    checkpointing: bool = False

    def build(self, folder: Path) -> str:
        """Save the model; returns its path."""
        more: dict[str, Any] = {"initializer_range": 0.1}  # larger weights grow what float32 rounds
        if self.task == "SequenceClassification":
            more |= {"id2label": NAMES, "label2id": {name: number for number, name in NAMES.items()}}
        base = language_models.build(folder / "base", self.family, task=self.task, **more)
        return language_models.adapt(folder / "adapter", base, lora_alpha=1) if self.adapter else base

    def meter(self, model: Model) -> GradientMeter:
        """A meter that takes few tokens at a time, so that there are several batches."""
        return GradientMeter(
            model,
            choose(model, self.layers),
            WINDOW,
            0 if model.card.classifier else STRIDE,
            batch_tokens=200,
            packing=self.packing,
            checkpointing=self.checkpointing,
        )


CASES = {
    **{f"{family}, SDPA": Case(family) for family in ("llama", "gpt2", "gpt_neox", "qwen2")},
    **{f"{family}, eager": Case(family, "eager") for family in ("llama", "gemma2")},
    "head and embeddings": Case(layers="lm_head,model.embed_tokens,*.1.*"),
    "packed": Case(packing=True),
    "packed, eager": Case(attention="eager", packing=True),
    "checkpointing": Case(checkpointing=True),
    "LoRA": Case(adapter=True),
    "LoRA, packed, checkpointing": Case(adapter=True, packing=True, checkpointing=True),
    "classifier, BERT": Case("bert", task="SequenceClassification"),
    "classifier, Llama, eager": Case("llama", "eager", task="SequenceClassification"),
}


def gradients(case: Case, folder: Path) -> str:
    """Losses, scores, norms and the sums of a fit."""
    model = load(case.build(folder), "fp32", classifiers=True)
    model.network.set_attn_implementation(case.attention)
    found, expected = (_all_of(case.meter(one)) for one in (model, exact(model)))
    return near({name: max(map(error, found[name], expected[name])) for name in expected}, EXACT)


def _all_of(meter: GradientMeter) -> dict[str, list[torch.Tensor]]:
    """Everything that collectors make of the documents, by name."""
    documents = Documents(TEXTS, labels=LABELS if meter.model.card.classifier else None)
    layers = meter.layers
    directions, found = random_directions(layers, [1, 3]), {}
    for norms in (False, True):  # batches differ where norms are wanted
        scores = scores_by(meter, documents, directions, norms)
        found["scores with norms" if norms else "scores"] = [scores.products]
        if scores.squares is not None:
            found["norms"] = [scores.squares]
    total, factors = GradientSum(layers), FactorSums(layers)
    passed = meter.run(documents, total, "mean")
    meter.run(documents, factors, "sum")
    squares = SquareSums(layers, [(_like(left, one), _like(right, one)) for (left, right), one in zip(
        random_bases(layers), layers, strict=True)])  # fmt: skip
    meter.run(documents, squares, "sum")
    return found | {
        "losses": [torch.from_numpy(passed.losses)],
        "gradients": total.total,
        "factors": [side for one in factors.factors for side in (one.inputs, one.outputs)],
        "squares": squares.total,
    }


def _like(matrix: torch.Tensor | None, layer: Any) -> torch.Tensor | None:
    return None if matrix is None else matrix.to(layer.module.weight)


def scores_by(
    meter: GradientMeter, documents: Documents, directions: Sequence[Sequence[Direction]], norms: bool = False
) -> Scores:
    """The scores of documents by directions, one a layer and group, which are moved to where each layer is."""
    comparisons = [
        comparison([_moved(one, layer.module.weight) for one in mine])
        for layer, mine in zip(meter.layers, directions, strict=True)
    ]
    scores = Scores(comparisons, len(documents), len(directions[0]), meter.model.device, norms)
    meter.run(documents, scores, "mean")
    return scores


def _moved(direction: Direction, weight: torch.Tensor) -> Direction:
    """The direction on a weight's device, in its precision."""
    return Direction(direction.left.to(weight), direction.right.to(weight))


def fit(preconditioner: str, folder: Path) -> str:
    """Scores by directions that were fitted on the same device, the curvature with its eigenvectors included."""
    model = load(language_models.build(folder), "fp32")
    found, expected = (_fitted_scores(one, preconditioner) for one in (model, exact(model)))
    return near({"scores": error(found, expected)}, FITTED)


def _fitted_scores(model: Model, preconditioner: str) -> torch.Tensor:
    meter = GradientMeter(model, choose(model, "all"), WINDOW, batch_tokens=400)
    query = mean_gradient(meter, Documents(TEXTS[:6]), "mean", "target")
    directions = find(meter, [query], Curvature(preconditioner), Documents(TEXTS), Cut(0)).directions
    return scores_by(meter, Documents(TEXTS), directions).products


# --- Losses and vectors. ---


def losses(folder: Path) -> str:
    """The loss of every token, by windows."""
    found = {}
    for family in language_models.FAMILIES:
        model = load(language_models.build(folder / family, family), "fp32")
        meters = [LossMeter(one, WINDOW, STRIDE, 200) for one in (model, exact(model))]
        mine, truth = (np.concatenate(meter.token_losses(TEXTS)) for meter in meters)
        found[family] = error(mine, truth)
    return near(found, EXACT)


def vectors(folder: Path) -> str:
    """Vectors of an encoder and of a causal model, by each pooling."""
    found = {}
    for family, task in (("bert", "MaskedLM"), ("llama", "CausalLM")):
        name = language_models.build(folder / family, family, task=task)
        for pooling in ("mean", "weighted-mean", "cls", "last"):
            options = EmbedderOptions(model=name, precision="fp32", pooling=pooling, batch_tokens=300)
            embedder = Embedder(options)
            mine = embedder.embed(TEXTS)
            embedder.model = exact(embedder.model)
            found[f"{family} {pooling}"] = error(mine, embedder.embed(TEXTS))
    return near(found, EXACT)


# --- Half precision. ---


def half_precision(precision: str, folder: Path) -> str:
    """Ranks of real text by influence, losses and similarity, beside float32; and not one NaN."""
    name = language_models.build(
        folder, hidden=128, layers=4, window=256, head_dim=32, intermediate_size=256, initializer_range=0.05
    )
    texts, target = ([document["text"][:300] for document in some] for some in (corpus.pool(), corpus.target()))
    model = load(name, "fp32")
    meter = GradientMeter(model, choose(model, "all"))
    query = mean_gradient(meter, Documents(target[:8]), "mean", "target")
    directions = find(meter, [query], Curvature("kfac"), Documents(texts[:20]), Cut(16)).directions
    some = texts if on_gpu() else texts[::12]
    whole, half = (_numbers(name, one, some, directions) for one in ("fp32", precision))
    for kind, values in half.items():
        assert np.isfinite(values).all(), f"{kind}: not all are finite"
    alike = {kind: spearman(values, whole[kind]) for kind, values in half.items()}
    said = ", ".join(f"{kind} {value:.5f}" for kind, value in alike.items())
    assert min(alike.values()) >= ALIKE, f"rank correlation below {ALIKE}: {said}"
    return f"rank correlation with fp32: {said} (at least {ALIKE})"


def _numbers(name: str, precision: str, texts: list[str], directions: Any) -> dict[str, Array]:
    """float64 (texts,) of each kind."""
    found: dict[str, Array] = {}
    for packing in (False, True):
        model = load(name, precision)
        meter = GradientMeter(model, choose(model, "all"), packing=packing)
        found["packed scores" if packing else "scores"] = (
            scores_by(meter, Documents(texts), directions).products[:, 0].cpu().numpy()
        )
    found["losses"] = np.array([one.mean(dtype=np.float64) for one in LossMeter(model).token_losses(texts)])
    if precision != "autocast":  # which embedders do not offer
        made = Embedder(EmbedderOptions(model=name, precision=precision)).embed(texts).astype(np.float64)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        found["similarity"] = (made @ made[:20].T).ravel()
    return found


# --- Memory. ---


def out_of_memory(kind: str, folder: Path) -> str:
    """A batch that is too large for what is left of the GPU's memory: halved, said once, and the same results."""
    name = language_models.build(folder, hidden=512, layers=4, window=2048, head_dim=128, intermediate_size=1408)
    run = _METERED[kind]
    batch = 1 << 16
    texts = [document["text"] for document in corpus.documents()] * 2
    peaks, expected = {}, None
    for size in (batch, batch // 2):
        peaks[size], expected = _peak(partial(run, name, texts, size))
    with _filled(sum(peaks.values()) // 2), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = run(name, texts, batch)
    said = [str(one.message) for one in told if issubclass(one.category, Notice)]
    assert 1 <= len(said) <= 2 and len(set(said)) == len(said), f"said {len(said)} times: {said}"
    assert all("exceeds the GPU's memory" in one for one in said), said
    return f"{near({kind: error(found, expected)}, EXACT)}; {said[0].partition(': ')[2]}"


def _scores_of(name: str, texts: list[str], batch: int) -> torch.Tensor:
    model = load(name, "fp32")
    meter = GradientMeter(model, choose(model, "all"), batch_tokens=batch)
    return scores_by(meter, Documents(texts), random_directions(meter.layers, [4])).products


def _losses_of(name: str, texts: list[str], batch: int) -> Array:
    return np.array([one.mean() for one in LossMeter(load(name, "fp32"), batch_tokens=batch).token_losses(texts)])


def _vectors_of(name: str, texts: list[str], batch: int) -> Array:
    return Embedder(EmbedderOptions(model=name, precision="fp32", batch_tokens=batch)).embed(texts)


_METERED: dict[str, Callable[[str, list[str], int], Any]] = {
    "scores": _scores_of,
    "losses": _losses_of,
    "vectors": _vectors_of,
}


def _peak(run: Callable[[], Any]) -> tuple[int, Any]:
    """The most bytes that the run holds on the GPU, its model included, and its result."""
    release()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = run()
    return torch.cuda.max_memory_allocated() - before, found


@contextlib.contextmanager
def _filled(left: int) -> Iterator[None]:
    """Leave so many bytes of the GPU's memory, for the length of a block."""
    release()
    free, _ = torch.cuda.mem_get_info()
    assert free > left, f"{free} bytes are free, and {left} are to be left"
    taken = torch.empty(free - left, dtype=torch.uint8, device="cuda")
    try:
        yield
    finally:
        del taken
        release()


# --- A model over several devices. ---


def spread(folder: Path) -> str:
    """`--spread`, over all GPUs that there are."""
    name = language_models.build(folder, layers=4)
    found = _by_exact(load(name, "fp32", spread=True), load(name, "fp32"))
    return f"{near({'scores': found}, EXACT)}; {torch.cuda.device_count()} GPUs"


def spread_with_cpu(folder: Path) -> str:
    """A device map of accelerate that runs the upper half of the blocks on the CPU, as a second GPU would."""
    name = language_models.build(folder, layers=4)
    plain, model = load(name, "fp32"), load(name, "fp32")
    first = "cuda:0" if on_gpu() else "cpu"
    places = {"model.embed_tokens": first, "model.rotary_emb": first, "model.norm": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{number}": "cpu" if number > 1 else first for number in range(4)}
    importlib.import_module("accelerate").dispatch_model(model.network, places, main_device="cpu", force_hooks=True)
    seen = {str(weight.device) for weight in model.network.parameters()}
    assert seen == {first, "cpu"}, seen
    return near({"scores": _by_exact(model, plain)}, EXACT)


def _by_exact(model: Model, plain: Model) -> float:
    """The error of scores of a spread model. plain: the same model on one device."""
    found, expected = (
        scores_by(meter, Documents(TEXTS), random_directions(meter.layers, [1, 3]), norms=True)
        for meter in (Case().meter(one) for one in (model, exact(plain)))
    )
    return max(error(found.products, expected.products), error(found.squares, expected.squares))


def too_large_to_spread(folder: Path) -> str:
    """A model that the memory left on all GPUs cannot hold is refused, and not laid on the CPU in silence."""
    name = language_models.build(folder, hidden=2048, layers=8, head_dim=512, intermediate_size=8192)
    with _filled(1 << 30):
        try:
            load(name, "fp32", spread=True)
        except UserError as refused:
            return str(refused).partition(": ")[2]
    raise AssertionError("a model of more than 1 GB was spread over 1 GB")


# --- The same again. ---


def same_again(folder: Path) -> str:
    """Losses and vectors of a second run are those of the first, to the bit; scores to rounding.

    The order of additions is open in CUDA's backward pass of attention, and where rows of one document are summed.
    """
    name = language_models.build(folder)
    for kind in ("losses", "vectors"):
        one, other = (torch.as_tensor(_METERED[kind](name, TEXTS, 400)) for _ in range(2))
        assert torch.equal(one, other), f"{kind}: differ by {error(one, other):.1e}"
    found = {}
    for packing in (False, True):
        twice = [_all_of(Case(packing=packing).meter(load(name, "fp32")))["scores"][0] for _ in range(2)]
        found["packed scores" if packing else "scores"] = error(*twice)
    return f"losses and vectors equal; {near(found, AGAIN)}"


def syncs(folder: Path) -> str:
    """Count how often a batch makes the host wait for the GPU; copies from and to plain memory do."""
    name = language_models.build(folder, window=256)
    texts = [text[:300] for text in language_models.TEXTS[:64]]
    found = {}
    for kind, most in SYNCS.items():
        counts = [_count_syncs(partial(_METERED[kind], name, texts, batch)) for batch in (800, 100_000)]
        batches = [_batches(kind, name, texts, batch) for batch in (800, 100_000)]
        found[kind] = (counts[0] - counts[1]) / (batches[0] - batches[1])
        assert found[kind] <= most, f"{kind}: {found[kind]:.1f} a batch, more than {most}"
    return ", ".join(f"{kind} {count:.1f} a batch (at most {SYNCS[kind]})" for kind, count in found.items())


SYNCS = {"scores": 8, "losses": 4, "vectors": 3}
"""By reading the code: the arrays that are copied to the GPU (token ids, owners of rows, which positions are real; and
where, what, whose and how much each prediction is), and one copy back, of losses or vectors."""


def _count_syncs(run: Callable[[], Any]) -> int:
    run()  # so that what is made once is made
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("called a synchronizing" in str(one.message) for one in told)


def _batches(kind: str, name: str, texts: list[str], batch: int) -> int:
    """Count the run's batches by the calls of the network's embedding; those of loading add the same to each run."""
    seen: list[int] = []
    with torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, _: seen.append(1) if isinstance(module, torch.nn.Embedding) else None
    ):
        _METERED[kind](name, texts, batch)
    return len(seen)


CHECKS: dict[str, Check] = {
    **{f"gradients: {name}": partial(gradients, case) for name, case in CASES.items()},
    **{f"fit: {name}": partial(fit, name) for name in ("none", "kfac", "ekfac")},
    "losses": losses,
    "vectors": vectors,
    "bf16": partial(half_precision, "bf16"),
    "autocast": partial(half_precision, "autocast"),
    **{f"out of memory: {kind}": partial(out_of_memory, kind) for kind in _METERED},
    "spread": spread,
    "spread over a GPU and the CPU": spread_with_cpu,
    "too large to spread": too_large_to_spread,
    "the same again": same_again,
    "syncs": syncs,
    "commands: several processes, and the CPU's subset": commands_agree,
    "Ctrl-C leaves no process on the GPU": interrupted,
    "kill -9 leaves no process on the GPU": killed,
}
NEEDS_CUDA = {"too large to spread", "syncs", *(f"out of memory: {kind}" for kind in _METERED)}
SHORT = {"gradients: LoRA, packed, checkpointing", "gradients: classifier, BERT", "fit: kfac", "losses", "vectors",
         "bf16", "spread over a GPU and the CPU"}  # fmt: skip
"""Checks that every run of the tests rehearses; the others take longer, and mostly repeat tests of the CPU there."""
NEEDS_PACKAGE = {
    **{name: "accelerate" for name in CHECKS if "spread" in name},
    **{f"gradients: {name}": "peft" for name, case in CASES.items() if case.adapter},
}


def missing(name: str, rehearsal: bool = False) -> str:
    """Return the reason for which a check does not run here, or "". rehearsal: run more than `SHORT` without a GPU."""
    package = NEEDS_PACKAGE.get(name, "")
    if package and importlib.util.find_spec(package) is None:
        return f"needs the package {package}"
    if name in NEEDS_CUDA and not on_gpu():
        return "needs a GPU that torch sees"
    if name not in SHORT and not (on_gpu() or rehearsal):
        return "no GPU; `python -m benchmarks.gpu --cpu --steps correctness` rehearses it"
    return ""
