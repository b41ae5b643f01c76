"""Several documents in a row: the same gradients, or a refusal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gradient_truth import MODELS, TEXTS, assert_collected, assert_moments, close, copied, gradients, in_double, loss
from hypothesis import given
from hypothesis import strategies as st

import language_models
from dvsel.errors import UserError
from dvsel.gradients.capture import Collector, RowLayout
from dvsel.gradients.gradient_pass import GradientMeter, packed
from dvsel.gradients.layers import choose
from dvsel.gradients.moments import GradientSum
from dvsel.language import Documents
from dvsel.language.models import Model, load
from dvsel.language.windows import Window

MANY = [*TEXTS, *(text[: 10 + 7 * number] for number, text in enumerate(language_models.TEXTS[20:26]))]
WITH_SDPA = [name for name in MODELS if name != "gemma2"]
EAGER = 1e-5  # whose softmax transformers computes in float32


class Counted(Collector):
    """Count the rows by their numbers of pieces."""

    def __init__(self) -> None:
        self.seen: list[RowLayout] = []

    def keep(self, layer: int, inputs: Any) -> None:  # noqa: ARG002
        if not layer:
            self.seen.append(self.rows)

    def take(self, layer: int, kept: Any, slopes: torch.Tensor) -> None:
        pass


@pytest.mark.parametrize(
    ("name", "attention"), [*((name, "sdpa") for name in WITH_SDPA), *((name, "eager") for name in ("llama", "gemma2"))]
)
def test_gradients_are_those_of_each_document(name: str, attention: str, model_of: Callable[..., Model]) -> None:
    model = copied(model_of(name))
    model.network.set_attn_implementation(attention)
    meter = GradientMeter(model, choose(model, "*.0.*,*.1.*"), 32, 20, batch_tokens=150, packing=True)
    tolerance = 1e-8 if attention == "sdpa" else EAGER
    expected = [gradients(model, meter.layers, text, 32, 20) for text in MANY]
    assert_collected(meter, Documents(MANY), expected, tolerance=tolerance)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
def test_gradients_in_single(name: str, model_of: Callable[..., Model]) -> None:
    model = model_of(name, torch.float32)
    exact = in_double(model)
    meter = GradientMeter(model, choose(model, "all"), 32, 20, batch_tokens=150, packing=True)
    expected = [gradients(exact, choose(exact, "all"), text, 32, 20) for text in MANY]
    assert_collected(meter, Documents(MANY), expected, tolerance=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_the_factors_are_those_of_each_document(name: str, model_of: Callable[..., Model]) -> None:
    model = copied(model_of(name))
    meter = GradientMeter(model, choose(model, "last"), 32, 32, batch_tokens=150, packing=True)
    numbers = [lambda text=text: loss(model, text, 32, 32, "sum") for text in MANY]
    assert_moments(meter, Documents(MANY), numbers, 1e-8 if name in WITH_SDPA else EAGER)


def test_rows_hold_several_documents_and_little_padding(model_of: Callable[..., Model]) -> None:
    model = model_of("llama")
    layers = choose(model, "last")
    seen, losses = [], []
    for packing in (False, True):
        counted = Counted()
        passed = GradientMeter(model, layers, 64, batch_tokens=256, packing=packing).run(
            Documents(MANY), counted, "sum"
        )
        seen.append(counted.seen)
        losses.append(torch.from_numpy(passed.losses))
    plain, dense = ([rows.real.shape[0] for rows in one] for one in seen)
    assert sum(plain) == sum(len(rows.pieces) for rows in seen[1]) > 1.5 * sum(dense)
    assert sum(rows.positions for rows in seen[1]) > 0.9 * sum(rows.real.numel() for rows in seen[1])
    close(losses[1], losses[0])


def test_numbers_without_gradients_are_the_same(model_of: Callable[..., Model]) -> None:
    for name in ("llama", "gemma2"):
        meters = [GradientMeter(model_of(name), [], 32, 20, packing=packing) for packing in (False, True)]
        plain, dense = (meter.run(Documents(MANY), None, "mean") for meter in meters)
        close(torch.from_numpy(dense.losses), torch.from_numpy(plain.losses), EAGER)
        assert (dense.tokens == plain.tokens).all()


@pytest.mark.parametrize("precision", ["bf16", "autocast"])
def test_half_precision_gives_numbers(precision: str, tmp_path: Path) -> None:
    for family in ("llama", "gpt2", "gemma2"):
        model = load(language_models.build(tmp_path / family, family), precision)
        layers = choose(model, "all")
        found = []
        for packing in (False, True):
            total = GradientSum(layers)
            passed = GradientMeter(model, layers, 32, batch_tokens=150, packing=packing).run(
                Documents(MANY), total, "mean"
            )
            assert passed.scored.all() and all(bool(one.isfinite().all()) for one in total.total)
            found.append(torch.cat([one.flatten() for one in total.total]))
        assert float(torch.cosine_similarity(found[0], found[1], dim=0)) > 0.99


class Leaky(Model):
    """A model whose attention takes no notice of where documents begin."""

    def states(self, ids: Any, **more: Any) -> Any:  # noqa: ARG002
        return super().states(ids)


def test_a_model_whose_documents_see_each_other_is_refused(model_of: Callable[..., Model], tmp_path: Path) -> None:
    model = model_of("llama")
    leaky = Leaky(**{one.name: getattr(model, one.name) for one in dataclasses.fields(model)})
    bloom = load(language_models.build(tmp_path, "bloom", head_dim=None))  # which takes no positions
    for one in (leaky, bloom):
        layers = choose(one, "last")
        with pytest.raises(UserError, match=r"documents in one row see each other, .*; drop --packing"):
            GradientMeter(one, layers, packing=True)
        GradientMeter(one, layers)


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 64))
def test_rows_hold_all_windows_once_and_none_is_longer_than_the_first(lengths: list[int], more: int) -> None:
    longest = max(lengths, default=0)
    waiting = [Window(row, more, more + one, more) for row, one in enumerate(sorted(lengths, reverse=True))]
    rows = packed(waiting)
    assert sorted((one for row in rows for one in row), key=lambda one: one.document) == waiting
    sizes = [sum(one.length for one in row) for row in rows]
    assert sizes == sorted(sizes, reverse=True) and (not sizes or sizes[0] <= longest)
    assert sum(one + other <= longest for one, other in zip(sizes[-2:], sizes[-1:], strict=False)) == 0 or len(rows) < 2
