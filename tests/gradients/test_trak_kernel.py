"""TRAK's kernel against matrices of features that are written out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gradient_truth import TEXTS

import language_models
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import choose
from dvsel.gradients.loss_outputs import margin, margin_and_doubt
from dvsel.gradients.low_rank import Cut
from dvsel.gradients.moments import GradientSum
from dvsel.gradients.projection import Bases, random_bases
from dvsel.gradients.target_gradient import mean_gradient
from dvsel.gradients.trak_kernel import TrakKernel, side
from dvsel.language import Documents
from dvsel.language.models import Model

pytestmark = pytest.mark.filterwarnings("ignore:curvature:dvsel.errors.Notice")  # samples are small, and known

SAMPLE = [*TEXTS[:3], *(text[:40] for text in language_models.TEXTS[20:26])]


def feature(model: Model, bases: list[Bases], meter: GradientMeter, text: str) -> npt.NDArray[np.float64]:
    """phi by autograd: log(p / (1 - p)), in the mean over tokens, by each layer's weights, projected."""
    weights = [layer.module.weight.requires_grad_(True) for layer in meter.layers]
    ids = torch.tensor([[model.card.start, *model.card.tokenizer(text, add_special_tokens=False)["input_ids"]]])
    shares = model.network(input_ids=ids[:, :-1]).logits[0].softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    found = torch.autograd.grad((shares / (1 - shares)).log().mean(), weights)
    for weight in weights:
        weight.requires_grad_(False)
    parts = [one.left.T @ gradient @ one.right for one, gradient in zip(bases, found, strict=True)]
    return torch.cat([part.flatten() for part in parts]).numpy()


@pytest.mark.parametrize("features", [40, 500])  # fewer and more than documents
def test_directions_give_the_kernel_of_explicit_features(features: int, model_of: Callable[..., Model]) -> None:
    model = model_of("llama")
    meter = GradientMeter(model, choose(model, "all"), output=margin)
    queries = [mean_gradient(meter, Documents(texts), "mean", "target") for texts in (TEXTS[:2], TEXTS[1:3])]
    found = TrakKernel(features, 0.1).directions(meter, queries, Documents(SAMPLE), Cut(0))
    bases = [random_bases(layer, side(features, len(meter.layers))) for layer in meter.layers]
    phi = {text: feature(model, bases, meter, text) for text in SAMPLE}
    rows = np.stack(list(phi.values()))
    fisher = rows.T @ rows / len(rows)
    fisher += 0.1 * np.trace(fisher) / len(fisher) * np.eye(len(fisher))
    for group, texts in enumerate((TEXTS[:2], TEXTS[1:3])):
        expected = np.linalg.solve(fisher, np.mean([phi[text] for text in texts], 0))
        mine = [
            basis.left.T @ layer[group].left @ layer[group].right.T @ basis.right
            for basis, layer in zip(bases, found, strict=True)
        ]
        long = -torch.cat([part.flatten() for part in mine]).numpy()  # the margin stands with the sign of a loss
        np.testing.assert_allclose(long, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


def test_features_are_spread_over_layers_as_squares() -> None:
    assert [side(*pair) for pair in ((2048, 28), (2048, 8), (100, 1), (5, 10))] == [8, 16, 10, 1]


def test_beside_the_margin_stands_the_probability_of_the_wrong_tokens() -> None:
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    right = torch.tensor([[0], [3], [6], [2]])
    (numbers, slopes), (expected, by_logits) = (call(logits.clone(), right) for call in (margin_and_doubt, margin))
    torch.testing.assert_close(numbers[:, 0], expected)
    torch.testing.assert_close(numbers[:, 1], 1 - logits.softmax(1).gather(1, right)[:, 0])
    torch.testing.assert_close(slopes, by_logits)


@pytest.mark.parametrize("collects", [True, False])
def test_what_stands_beside_is_summed_over_a_documents_tokens(collects: bool, model_of: Callable[..., Model]) -> None:
    model = model_of("llama")
    meter = GradientMeter(model, choose(model, "last"), 32, 16, 100, output=margin_and_doubt)
    alone = GradientMeter(model, meter.layers, 32, 16, 100, output=margin)
    documents = Documents(["", *TEXTS])
    found = meter.run(documents, GradientSum(meter.layers) if collects else None, "mean")
    np.testing.assert_allclose(found.losses, alone.run(documents, None, "mean").losses)
    assert found.beside is not None and found.beside.shape == (len(documents), 1)
    ids = torch.tensor([[model.card.start, *model.card.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]]])
    shares = model.network(input_ids=ids[:, :-1]).logits[0].softmax(-1).gather(1, ids[0, 1:, None])
    assert found.beside[1, 0] == pytest.approx(float((1 - shares.detach()).sum()))
    assert found.beside[0, 0] == 0 and alone.run(documents, None, "mean").beside is None
    nothing = meter.run(Documents([""]), None, "mean")
    assert nothing.losses.tolist() == [0] and not nothing.scored.any()
