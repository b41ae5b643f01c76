"""Captured inputs and gradients, and what a pass leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradient_truth import TEXTS, in_double

from dvsel.errors import UserError
from dvsel.gradients.capture import Collector, Piece, RowLayout, attached
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import Layer, choose
from dvsel.language import Documents
from dvsel.language.models import Model


class Watch(Collector):
    """Notes what it is shown."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, torch.Size]] = []
        self.taken: list[tuple[int, torch.Size]] = []
        self.padding = 0.0

    def keep(self, layer: int, inputs: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        assert not inputs.requires_grad
        self.kept.append((layer, inputs.shape))
        return inputs

    def take(self, layer: int, kept: torch.Tensor, slopes: torch.Tensor) -> None:
        assert kept.shape[:-1] == slopes.shape[:-1]
        self.taken.append((layer, slopes.shape))
        self.padding = max(self.padding, float(slopes[~self.rows.real].abs().sum()))


def test_each_layer_is_seen_once_a_pass_and_no_weight_gets_a_gradient(model_of: Callable[..., Model]) -> None:
    model = model_of("llama")
    layers = choose(model, "all")
    watch = Watch()
    GradientMeter(model, layers).run(Documents([TEXTS[0], TEXTS[0] + " a", TEXTS[0]]), watch, "sum")
    length = watch.kept[0][1][1]
    assert watch.kept == [(number, (3, length, layer.inputs)) for number, layer in enumerate(layers)]
    assert sorted(watch.taken) == [(number, (3, length, layer.outputs)) for number, layer in enumerate(layers)]
    assert watch.padding == 0
    assert all(one.grad is None and not one.requires_grad for one in model.network.parameters())
    assert not any(layer.module._forward_hooks for layer in layers)


def test_below_the_lowest_captured_layer_there_is_no_graph(model_of: Callable[..., Model]) -> None:
    model = in_double(model_of("llama"))
    block, seen = model.network.model.layers[1], []
    block.register_forward_pre_hook(lambda _, given: seen.append(given[0].requires_grad))
    meter = GradientMeter(model, choose(model, "last"))
    meter.run(Documents(TEXTS[:1]), Watch(), "sum")
    GradientMeter(model, choose(model, "all")).run(Documents(TEXTS[:1]), Watch(), "sum")
    assert seen == [False, True]


class Net(torch.nn.Module):
    """A layer that sees rows in some other way."""

    def __init__(self, use: Callable[..., Any]) -> None:
        super().__init__()
        self.linear, self.use = torch.nn.Linear(4, 2), use

    def forward(self, states: torch.Tensor) -> Any:
        return self.use(self.linear, states)


def passed(use: Callable[..., Any]) -> Watch:
    """Make one pass over 3 rows of 5."""
    net = Net(use).requires_grad_(False)
    watch = Watch()
    with attached([Layer("a.linear", net.linear, 4, 2)], watch):
        watch.begin(
            RowLayout([Piece(row, row, 0, 5) for row in range(3)], torch.arange(3), torch.ones(3, 5, dtype=torch.bool))
        )
        net(torch.ones(3, 5, 4)).sum().backward()
    return watch


def test_positions_that_are_laid_end_to_end_are_put_back_in_rows() -> None:
    for shape in ((15, 4), (1, 15, 4)):
        watch = passed(lambda linear, states, shape=shape: linear(states.reshape(shape)))
        assert watch.kept == [(0, (3, 5, 4))] and watch.taken == [(0, (3, 5, 2))]


@pytest.mark.parametrize(
    ("use", "complaint"),
    [
        (lambda linear, states: linear(states[:, :2]), "layer a.linear: does not see every token in its row"),
        (lambda linear, states: linear(states.transpose(0, 1)), "does not see every token in its row"),
        (lambda linear, states: linear(states) + linear(states), "layer a.linear: runs twice in a pass"),
    ],
)
def test_layers_that_cannot_be_captured_are_named(use: Callable[..., Any], complaint: str) -> None:
    with pytest.raises(UserError, match=f"{complaint}.*; leave it out with --layers"):
        passed(use)
