"""Gradients by plain autograd: weights that want gradients, one document at a time, in float64."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import language_models
from dvsel.gradients.compare import Scores, comparison
from dvsel.gradients.gradient_pass import GradientMeter, Passed
from dvsel.gradients.layers import Layer
from dvsel.gradients.low_rank import Direction
from dvsel.gradients.moments import Basis, FactorSums, GradientSum, SquareSums
from dvsel.language import Documents
from dvsel.language.models import Model, load

MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, tied": {"family": "llama", "tie_word_embeddings": True},
    "gpt2": {},  # with Conv1D, whose weights are transposed
    "gpt2, tied": {"family": "gpt2", "tie_word_embeddings": True},
    "gpt_neox": {},
    "qwen2": {},  # with biases
    "gemma2": {},  # whose logits come whole
}
LONG = language_models.TEXTS[7][:330]  # more than two windows of 32 tokens
TEXTS = [text[:60] for text in language_models.TEXTS[:3]] + [LONG, "x", language_models.TEXTS[9][:90]]

Gradients = list[torch.Tensor]
"""Of one document, by each layer's weights (outputs, inputs)."""


class Norm(torch.nn.Module):
    """Root mean square norm in the precision of its input, where transformers' rounds to float32."""

    def __init__(self, weight: torch.Tensor, add: float) -> None:
        super().__init__()
        self.weight, self.add = torch.nn.Parameter(weight.double() + add), add

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.weight.to(states) * states * (states.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


def build(folder: Path, name: str, dtype: torch.dtype = torch.float64) -> Model:
    """A tiny model of `MODELS`, all of it in this precision."""
    options = {"family": name, "head_dim": 8, **MODELS[name]}
    if options["family"].startswith("gpt"):
        options.pop("head_dim")
    return in_precision(load(language_models.build(folder, **options), "fp32"), dtype)


def in_precision(model: Model, dtype: torch.dtype = torch.float64) -> Model:
    """The model, changed so that all of it, with its norms, is in this precision."""
    for parent in list(model.network.modules()):
        for key, module in list(parent.named_children()):
            if type(module).__name__.endswith("RMSNorm"):
                add = 1.0 if type(module).__name__.startswith("Gemma") else 0.0
                setattr(parent, key, Norm(module.weight.data, add))
    model.network.to(dtype)
    return model


def copied(model: Model) -> Model:
    """The model with a network of its own, whose tied weights are apart."""
    network = copy.deepcopy(model.network)
    head = network.get_output_embeddings()
    if head is not None and head.weight is network.get_input_embeddings().weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    return dataclasses.replace(model, network=network)


def in_double(model: Model) -> Model:
    """The same model, in float64."""
    return dataclasses.replace(model, network=copy.deepcopy(model.network).double())


def loss(
    model: Model, text: str, window: int, stride: int, reduction: str = "mean", prompt: str | None = None
) -> torch.Tensor:
    """The document's loss: each token in the first window that holds it together with what it follows."""
    context, words = (model.card.tokenizer(one or "", add_special_tokens=False)["input_ids"] for one in (prompt, text))
    document = [model.card.start, *context, *words]
    losses, done = [], 1 + len(context)
    for begin in range(0, len(document) - 1, stride):
        end = min(begin + window, len(document) - 1)
        if end >= done:
            logs = model.network(input_ids=torch.tensor([document[begin:end]])).logits[0].log_softmax(-1)
            losses += [-logs[at - begin - 1, document[at]] for at in range(done, end + 1)]
            done = end + 1
    return torch.stack(losses).mean() if reduction == "mean" else torch.stack(losses).sum()


def gradients(
    model: Model, layers: Sequence[Layer], text: str, window: int, stride: int, reduction: str = "mean"
) -> Gradients:
    """The gradient of each layer's weights (outputs, inputs)."""
    return by_weights(layers, lambda: loss(model, text, window, stride, reduction))


def by_weights(layers: Sequence[Layer], number: Callable[[], torch.Tensor]) -> Gradients:
    """The gradient of a number, which is yet to be computed, by each layer's weights (outputs, inputs)."""
    weights = [layer.module.weight.requires_grad_(True) for layer in layers]
    found = torch.autograd.grad(number(), weights)
    for weight in weights:
        weight.requires_grad_(False)
    turned = ("Conv1D", "Embedding")
    return [
        one.T if type(layer.module).__name__.endswith(turned) else one for one, layer in zip(found, layers, strict=True)
    ]


def moments(layers: Sequence[Layer], number: Callable[[], torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Sums of x x^T and g g^T over the positions that each layer is fed while a number is computed."""
    seen: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in layers]

    def hook(place: int) -> Callable[..., None]:
        def see(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            taken = inputs[0].detach()
            if isinstance(module, torch.nn.Embedding):
                taken = torch.nn.functional.one_hot(taken, module.num_embeddings).to(output)
            if not output.requires_grad:
                output.requires_grad_(True)
            output.retain_grad()
            seen[place].append((taken, output))

        return see

    handles = [layer.module.register_forward_hook(hook(place)) for place, layer in enumerate(layers)]
    number().backward()  # type: ignore[no-untyped-call]
    for handle in handles:
        handle.remove()
    return [
        (sum(flat(x).T @ flat(x) for x, _ in mine), sum(flat(out.grad).T @ flat(out.grad) for _, out in mine))  # type: ignore[arg-type, misc]
        for mine in seen
    ]


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """(positions, width)."""
    return tensor.reshape(-1, tensor.shape[-1])


def random_directions(layers: Sequence[Layer], ranks: Sequence[int]) -> list[list[Direction]]:
    """Make one direction of each rank in every layer, in the layer's precision."""
    generator = torch.Generator().manual_seed(0)

    def draw(width: int, rank: int, like: torch.Tensor) -> torch.Tensor:
        return torch.randn(width, rank, generator=generator, dtype=torch.float64).to(like.dtype)

    return [
        [
            Direction(draw(one.outputs, rank, one.module.weight), draw(one.inputs, rank, one.module.weight))
            for rank in ranks
        ]
        for one in layers
    ]


def random_bases(layers: Sequence[Layer]) -> list[tuple[Basis, Basis]]:
    """Orthogonal matrices for each layer; None for the inputs of an embedding."""
    generator = torch.Generator().manual_seed(1)

    def draw(width: int, like: torch.Tensor) -> torch.Tensor:
        return torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0].to(like.dtype)  # type: ignore[no-any-return]

    return [
        (draw(one.outputs, one.module.weight), None if one.embeds else draw(one.inputs, one.module.weight))
        for one in layers
    ]


def assert_collected(
    meter: GradientMeter,
    documents: Documents,
    expected: Sequence[Gradients | None],
    reduction: str = "mean",
    tolerance: float = 1e-8,
) -> Passed:
    """Every collector finds what follows from the gradients of the documents; None where one has no loss."""
    layers, known = meter.layers, [[weight.double() for weight in one] for one in expected if one is not None]
    total = GradientSum(layers)
    passed = meter.run(documents, total, reduction)
    for number, found in enumerate(total.total):
        close(found, torch.stack([one[number] for one in known]).sum(0), tolerance)
    for ranks in ([1, 3], [max(max(one.outputs, one.inputs) for one in layers)]):
        _assert_scores(meter, documents, expected, reduction, ranks, tolerance)
    bases = random_bases(layers)
    squares = SquareSums(layers, bases)
    meter.run(documents, squares, reduction)
    for number, (found, (left, right)) in enumerate(zip(squares.total, bases, strict=True)):
        assert left is not None
        rotated = [one[number] if right is None else one[number] @ right.double() for one in known]
        close(found, torch.stack([(left.T.double() @ one).square() for one in rotated]).sum(0), tolerance)
    return passed


def _assert_scores(
    meter: GradientMeter,
    documents: Documents,
    expected: Sequence[Gradients | None],
    reduction: str,
    ranks: list[int],
    tolerance: float,
) -> None:
    directions = random_directions(meter.layers, ranks)
    whole = [[one.left.double() @ one.right.double().T for one in layer] for layer in directions]
    products = torch.zeros(len(documents), len(ranks), dtype=torch.float64)
    squares = torch.zeros(len(documents), dtype=torch.float64)
    for row, mine in enumerate(expected):
        for one, layer in zip(mine or [], whole, strict=mine is not None):
            products[row] += torch.stack([(one * matrix).sum() for matrix in layer])
            squares[row] += one.square().sum()
    for with_norms in (False, True):  # batches otherwise, where norms are wanted
        scores = Scores([comparison(layer) for layer in directions], len(documents), len(ranks), "cpu", with_norms)
        meter.run(documents, scores, reduction)
        close(scores.products, products, tolerance)
    assert scores.squares is not None
    close(scores.squares, squares, tolerance)


def assert_moments(
    meter: GradientMeter, documents: Documents, numbers: Sequence[Callable[[], torch.Tensor]], tolerance: float = 1e-8
) -> FactorSums:
    """The factors are the sums of what the layers see while these numbers, of the documents, are computed."""
    found = FactorSums(meter.layers)
    meter.run(documents, found, "sum")
    seen = [moments(meter.layers, number) for number in numbers]
    for place, factors in enumerate(found.factors):
        for mine, side in ((factors.inputs, 0), (factors.outputs, 1)):
            whole = sum(one[place][side] for one in seen)
            close(mine, whole if mine.ndim == 2 else whole.diagonal(), tolerance)  # type: ignore[union-attr,arg-type]
    return found


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-8) -> None:
    """Equal but for this share of the largest."""
    assert found.shape == expected.shape
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    error = float((found.double() - expected.double()).abs().max()) if expected.numel() else 0.0
    assert math.isfinite(error) and error <= tolerance * largest, f"{error / largest:.2g} of the largest"
