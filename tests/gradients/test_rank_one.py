"""DataInf against its formula, with every document's gradient as one long vector."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from gradient_truth import TEXTS, gradients, in_double

from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import choose
from dvsel.gradients.low_rank import Cut
from dvsel.gradients.target_gradient import Curvature, mean_gradient
from dvsel.language import Documents
from dvsel.language.models import Model


def formula(query: torch.Tensor, sample: torch.Tensor, damping: float) -> torch.Tensor:
    """Equation 5 of the paper for one layer, without its sign. query: (weights,). sample: (documents, weights)."""
    size = damping * sample.square().sum(1).mean() / len(query)
    terms = [one * (one @ query) / (size + one @ one) for one in sample]
    return (query - torch.stack(terms).mean(0)) / size


@pytest.mark.parametrize(
    ("name", "reduction", "packing"), [("llama", "mean", False), ("llama", "sum", True), ("gpt2", "mean", False)]
)
def test_it_is_the_papers_formula(name: str, reduction: str, packing: bool, model_of: Callable[..., Model]) -> None:
    """For two targets; with padding, several windows, and a document without a token, which does not count."""
    model = model_of(name)
    meter = GradientMeter(model, choose(model, "last"), 32, 16, batch_tokens=150, packing=packing)
    queries = [mean_gradient(meter, Documents(texts), reduction, "target") for texts in (TEXTS[:2], TEXTS[3:5])]
    curvature = Curvature("datainf", 0.1, reduction=reduction)
    found = curvature.directions(meter, queries, Documents(["", *TEXTS]), Cut(0))
    documents = [gradients(model, meter.layers, text, 32, 16, reduction) for text in TEXTS]
    for number, layer in enumerate(found):
        sample = torch.stack([mine[number].flatten() for mine in documents])
        for one, query in zip(layer, queries, strict=True):
            gradient = query.gradients[number]
            expected = formula(gradient.flatten(), sample, 0.1).view(gradient.shape)
            scale = float(expected.abs().max())
            torch.testing.assert_close(one.left @ one.right.T, expected, rtol=1e-6, atol=1e-8 * scale)


def test_the_mean_of_inverses_is_the_inverse_where_documents_are_one(model_of: Callable[..., Model]) -> None:
    """With one document in the sample nothing is exchanged: Q = (g g^T + lambda I)^-1 q."""
    model = model_of("llama")
    meter = GradientMeter(model, choose(model, "*.1.*.k_proj"), 32, 16)
    query = mean_gradient(meter, Documents(TEXTS[:2]), "mean", "target")
    ((found,),) = Curvature("datainf", 0.1).directions(meter, [query], Documents(TEXTS[:1]), Cut(0))
    (gradient,) = gradients(model, meter.layers, TEXTS[0], 32, 16)
    long = gradient.flatten()
    size = 0.1 * long @ long / len(long)
    whole = torch.outer(long, long) + size * torch.eye(len(long), dtype=torch.float64)
    expected = torch.linalg.solve(whole, query.gradients[0].flatten()).view(gradient.shape)
    torch.testing.assert_close(found.left @ found.right.T, expected, rtol=1e-6, atol=1e-8 * float(expected.abs().max()))


def test_a_layer_without_a_gradient_has_a_direction(model_of: Callable[..., Model]) -> None:
    """One factor of an adapter has none until the other is trained."""
    model = in_double(model_of("llama"))
    model.network.model.layers[1].mlp.down_proj.weight.data.zero_()
    meter = GradientMeter(model, choose(model, "*.1.mlp.*"), 32)
    query = mean_gradient(meter, Documents(TEXTS[:2]), "mean", "target")
    found = Curvature("datainf", 0.1).directions(meter, [query], Documents(TEXTS), Cut(0))
    for (one,), layer in zip(found, meter.layers, strict=True):
        assert torch.isfinite(one.left).all() and torch.isfinite(one.right).all()
        assert bool(one.left.any()) == layer.name.endswith("down_proj")


def test_documents_whose_losses_are_no_numbers_do_not_count(model_of: Callable[..., Model]) -> None:
    model = in_double(model_of("llama"))
    (token,) = model.card.tokenizer("~", add_special_tokens=False)["input_ids"]
    model.network.get_input_embeddings().weight.data[token] = math.nan
    meter = GradientMeter(model, choose(model, "last"), 32, 16)
    query = mean_gradient(meter, Documents(TEXTS[:2]), "mean", "target")
    curvature = Curvature("datainf", 0.1)
    with pytest.warns(UserWarning, match="the pool's sample, document 2: its loss is NaN or infinite"):
        found = curvature.directions(meter, [query], Documents([TEXTS[0], "a ~ " + TEXTS[3], TEXTS[1]]), Cut(0))
    expected = curvature.directions(meter, [query], Documents([TEXTS[0], TEXTS[1]]), Cut(0))
    for (one,), (other,) in zip(found, expected, strict=True):
        torch.testing.assert_close(one.left @ one.right.T, other.left @ other.right.T)
