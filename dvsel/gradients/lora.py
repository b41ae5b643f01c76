"""Small matrices beside the layers of a model, trained in their place (Hu et al. 2021, "LoRA: Low-Rank Adaptation of
Large Language Models"), by the package peft."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Conv1D

from dvsel.errors import UserError
from dvsel.gradients.capture import wide
from dvsel.gradients.layers import Layer, choose
from dvsel.language.models import Model

ATTENTION = "attention"
_NAMES = ("attn", "attention")  # what architectures call it
_ADAPTER = "default"


@dataclass(frozen=True)
class LoRA:
    """Addition to a layer W x: alpha / rank * B A dropout(x), with A of (rank, inputs) and B of (outputs, rank).

    layers: `ATTENTION`, or as `dvsel.gradients.layers.choose` takes them. seed: of A's random weights; B begins at 0.
    """

    layers: str
    rank: int
    alpha: float
    dropout: float
    seed: int


def check() -> None:
    """Raise UserError where peft is missing."""
    for name in ("peft", "accelerate"):
        if importlib.util.find_spec(name) is None:
            raise UserError(f"LoRA needs the package {name}; pip install 'dvsel[models]'")


def attach(model: Model, lora: LoRA) -> list[str]:
    """Add the matrices, in float32 (or float64 where the model is), to the model itself; the names of their layers.

    Raises UserError for a model that is an adapter already, or where no layer is wanted.
    """
    check()
    if model.card.adapter:
        raise UserError(f"model {model.card.name}: is an adapter already; merge it into its base model first")
    peft = importlib.import_module("peft")
    wanted = _wanted(model, lora.layers)
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=[layer.name for layer in wanted],
        fan_in_fan_out=all(isinstance(layer.module, Conv1D) for layer in wanted),
    )
    with _seeded(lora.seed):
        peft.inject_adapter_in_model(config, model.network, adapter_name=_ADAPTER)
    model.network.eval().requires_grad_(False)
    names = [f"{layer.name}.{part}.{_ADAPTER}" for layer in wanted for part in ("lora_A", "lora_B")]
    for name in names:
        weight = model.network.get_submodule(name).weight
        weight.data = wide(weight.data)
    return names


def size(model: Model, lora: LoRA) -> int:
    """Return the number of weights that `attach` would add."""
    return lora.rank * sum(layer.inputs + layer.outputs for layer in _wanted(model, lora.layers))


def _wanted(model: Model, layers: str) -> list[Layer]:
    if layers == ATTENTION:
        found = [layer for layer in choose(model, "all") if any(name in layer.name for name in _NAMES)]
        if not found:
            raise UserError(f"model {model.card.name}: no layer's name tells that it is of attention; "
                            "name layers with --layers, or pass --layers all")  # fmt: skip
        return found
    found = choose(model, layers)
    if embedding := next((layer.name for layer in found if layer.embeds), None):
        raise UserError(f"layers {layers!r}: {embedding} is an embedding, which has no LoRA here; leave it out")
    return found


@contextlib.contextmanager
def training(model: Model, seed: int) -> Iterator[None]:
    """Turn on dropout, the same for the same seed."""
    dropouts = [
        module
        for name, module in model.network.named_modules()
        if isinstance(module, torch.nn.Dropout) and ".lora_dropout." in name
    ]
    with _seeded(seed):
        for module in dropouts:
            module.train()
        try:
            yield
        finally:
            for module in dropouts:
                module.eval()


def put(layers: Sequence[Layer], weights: Sequence[torch.Tensor]) -> None:
    """Give layers these weights."""
    for layer, weight in zip(layers, weights, strict=True):
        layer.module.weight.data.copy_(weight)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[Any]:
    """Draw torch's random numbers from this seed on, and afterwards as if nothing had happened."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
