"""Gradient checkpointing: the same gradients, of fewer activations held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gradient_truth import TEXTS, assert_collected, assert_moments, copied, gradients, in_precision, loss

import language_models
from dvsel.gradients.capture import Collector
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import choose
from dvsel.gradients.moments import GradientSum
from dvsel.language import Documents
from dvsel.language.models import Model, load
from dvsel.language.token_losses import LossMeter


class Seen(Collector):
    """Count how often each layer was shown."""

    def __init__(self, layers: int) -> None:
        self.kept, self.taken = [0] * layers, [0] * layers

    def keep(self, layer: int, inputs: Any) -> None:  # noqa: ARG002
        self.kept[layer] += 1

    def take(self, layer: int, kept: None, slopes: torch.Tensor) -> None:  # noqa: ARG002
        self.taken[layer] += 1


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model whose blocks themselves drop out in training mode, half of everything."""
    name = language_models.build(tmp_path_factory.mktemp("opt"), "opt", dropout=0.5, attention_dropout=0.5)
    return in_precision(load(name, "fp32"))  # type: ignore[no-any-return]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "opt"])
def test_gradients_are_the_same(name: str, packing: bool, opt: Model, model_of: Callable[..., Model]) -> None:
    model = copied(opt if name == "opt" else model_of(name))
    plain = copied(model)
    meter = GradientMeter(
        model, choose(model, "all"), 32, 20, batch_tokens=150, packing=packing and name != "opt", checkpointing=True
    )
    expected = [gradients(plain, choose(plain, "all"), text, 32, 20) for text in TEXTS]
    assert_collected(meter, Documents(TEXTS), expected, tolerance=1e-5 if name == "gemma2" else 1e-8)
    numbers = [lambda text=text: loss(plain, text, 32, 20, "sum") for text in TEXTS]
    of_plain = GradientMeter(plain, choose(plain, "upper-half"), 32, 20, batch_tokens=150)
    assert_moments(of_plain, Documents(TEXTS), numbers)


def test_each_layer_is_shown_once(model_of: Callable[..., Model]) -> None:
    model = copied(model_of("llama"))
    for _ in range(2):  # a second meter adds nothing
        meter = GradientMeter(model, choose(model, "all"), 64, batch_tokens=10_000, checkpointing=True)
    seen = Seen(len(meter.layers))
    meter.run(Documents([TEXTS[0]] * 3), seen, "mean")
    assert set(seen.kept) == set(seen.taken) == {1}


def test_losses_are_the_same_afterwards(model_of: Callable[..., Model]) -> None:
    model = copied(model_of("llama", torch.float32))
    before = LossMeter(model).token_losses(TEXTS)
    meter = GradientMeter(model, choose(model, "all"), checkpointing=True)
    meter.run(Documents(TEXTS), None, "mean")
    for one, other in zip(LossMeter(model).token_losses(TEXTS), before, strict=True):
        assert (one == other).all()


def test_fewer_activations_are_held(tmp_path: Path) -> None:
    """Bytes that the graph holds at the end of the forward pass, of a collector that keeps nothing."""
    model = load(language_models.build(tmp_path, layers=8, window=256), "fp32")
    layers = choose(model, "all")
    held = []
    for checkpointing in (False, True):
        meter = GradientMeter(model, layers, batch_tokens=10_000, checkpointing=checkpointing)
        held.append(_held(meter))
    assert held[1] < 0.25 * held[0]


def _held(meter: GradientMeter) -> int:
    """Bytes of the different tensors that are saved for the backward pass until it begins."""
    saved: dict[int, int] = {}
    forward: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    class Turned(Seen):
        def turn(self) -> None:
            super().turn()
            forward.append(sum(saved.values()))

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        meter.run(Documents([TEXTS[3]] * 4), Turned(len(meter.layers)), "mean")
    weights = {
        one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in meter.model.network.parameters()
    }
    return forward[0] - sum(size for place, size in weights.items() if place in saved)  # type: ignore[no-any-return]


def test_adapters_and_classifiers(tmp_path: Path) -> None:
    """Found by their blocks, as all models."""
    name = language_models.build(tmp_path, "bert", task="SequenceClassification")
    model = load(name, "fp32", classifiers=True)
    layers = choose(model, "all")
    documents = Documents(TEXTS, labels=["LABEL_1"] * len(TEXTS))
    found = []
    for checkpointing in (False, True):
        total = GradientSum(layers)
        GradientMeter(model, layers, checkpointing=checkpointing).run(documents, total, "mean")
        found.append(total.total)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
