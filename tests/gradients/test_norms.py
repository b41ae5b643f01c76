"""Squared norms under a curvature against the curvature's matrix, written out and solved for a document at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from gradient_truth import TEXTS, close, gradients

from dvsel.gradients import norms
from dvsel.gradients.curvature import Kronecker, ekfac, kfac
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import Layer, choose
from dvsel.gradients.moments import Factors
from dvsel.gradients.norms import Squares, Whitening
from dvsel.language import Documents
from dvsel.language.models import Model

SMALL = {"llama": "*.1.*.k_proj,*.1.*.o_proj", "gpt2": "*.1.attn.c_proj"}  # of which H can be written out
ALL_KINDS = "*.o_proj,*.1.mlp.down_proj,model.embed_tokens,lm_head"


def some_metrics(layers: Sequence[Layer], corrected: bool = False) -> list[Kronecker]:
    """Random ones; of an embedding's inputs a diagonal."""
    generator = torch.Generator().manual_seed(0)

    def moments(width: int, diagonal: bool = False) -> torch.Tensor:
        rows = torch.randn(2 * width, width, generator=generator, dtype=torch.float64)
        return rows.square().sum(0) if diagonal else rows.T @ rows

    found = [kfac(Factors(moments(one.inputs, one.embeds), moments(one.outputs), 50), 0.1) for one in layers]
    if not corrected:
        return found
    values = [torch.rand(one.damped.shape, generator=generator, dtype=torch.float64) for one in found]
    return [ekfac(one, 50 * squared, 50, 0.1) for one, squared in zip(found, values, strict=True)]


def written_out(metric: Kronecker) -> torch.Tensor:
    """H, a matrix over all weights of the layer."""
    vectors = torch.kron(metric.outputs.basis, metric.inputs.basis)  # type: ignore[arg-type]
    return vectors * metric.damped.flatten() @ vectors.T


def solved(metric: Kronecker, gradient: torch.Tensor) -> float:
    """<G, S^-1 G A^-1> for a layer too large to write H out."""
    outputs = metric.outputs.basis * metric.outputs.values @ metric.outputs.basis.T  # type: ignore[operator, union-attr]
    turned = torch.linalg.solve(outputs, gradient)
    if metric.inputs.basis is None:
        return float((gradient * turned / metric.inputs.values).sum())
    inputs = metric.inputs.basis * metric.inputs.values @ metric.inputs.basis.T
    return float((gradient * torch.linalg.solve(inputs, turned.T).T).sum())


def found_by(meter: GradientMeter, whitenings: Sequence[Whitening]) -> torch.Tensor:
    found = Squares(whitenings, len(TEXTS), "cpu")
    meter.run(Documents(TEXTS), found, "mean")
    return found.total


@pytest.mark.parametrize("preconditioner", ["kfac", "ekfac"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_norms_are_those_of_the_curvatures_matrix(
    name: str, preconditioner: str, model_of: Callable[..., Model]
) -> None:
    """So are those of documents that are longer than the window."""
    model = model_of(name)
    layers = choose(model, SMALL[name])
    metrics = some_metrics(layers, preconditioner == "ekfac")
    documents = [gradients(model, layers, text, 32, 16) for text in TEXTS]
    expected = torch.zeros(len(TEXTS), dtype=torch.float64)
    for number, metric in enumerate(metrics):
        columns = torch.stack([one[number].flatten() for one in documents], 1)
        expected += (columns * torch.linalg.solve(written_out(metric), columns)).sum(0)
    whitenings = [getattr(norms, preconditioner)(metric) for metric in metrics]
    found = found_by(GradientMeter(model, layers, 32, batch_tokens=70), whitenings)
    close(found, expected, 1e-8)


@pytest.mark.parametrize("packing", [False, True])
def test_layers_of_every_kind_count(packing: bool, model_of: Callable[..., Model]) -> None:
    """Embeddings too, whose inputs are token numbers; and packed rows."""
    model = model_of("llama")
    layers = choose(model, ALL_KINDS)
    metrics = some_metrics(layers)
    documents = [gradients(model, layers, text, 32, 16) for text in TEXTS]
    expected = [sum(solved(metric, one) for one, metric in zip(mine, metrics, strict=True)) for mine in documents]
    meter = GradientMeter(model, layers, 32, batch_tokens=70, packing=packing)
    found = found_by(meter, [norms.kfac(metric) for metric in metrics])
    close(found, torch.tensor(expected, dtype=torch.float64), 1e-8)


def test_corrected_eigenvalues_of_embeddings(model_of: Callable[..., Model]) -> None:
    model = model_of("llama")
    layers = choose(model, "model.embed_tokens")
    (metric,) = some_metrics(layers, corrected=True)
    rotated = [metric.outputs.basis.T @ gradients(model, layers, text, 32, 16)[0] for text in TEXTS]  # type: ignore[union-attr]
    expected = torch.stack([(one.square() / metric.damped).sum() for one in rotated])
    close(found_by(GradientMeter(model, layers, 32, batch_tokens=70), [norms.ekfac(metric)]), expected, 1e-8)


def test_without_a_curvature_norms_are_plain(model_of: Callable[..., Model]) -> None:
    model = model_of("gpt_neox")
    layers = choose(model, "all")
    expected = [sum(float(one.square().sum()) for one in gradients(model, layers, text, 32, 16)) for text in TEXTS]
    found = found_by(GradientMeter(model, layers, 32, batch_tokens=70), [Whitening()] * len(layers))
    close(found, torch.tensor(expected, dtype=torch.float64), 1e-8)


def test_nothing_is_left_after_a_reset(model_of: Callable[..., Model]) -> None:
    model = model_of("llama")
    layers = choose(model, "last")
    meter, found = GradientMeter(model, layers, 32), Squares([Whitening()] * len(layers), len(TEXTS), "cpu")
    meter.run(Documents(TEXTS), found, "mean")
    first = found.total.clone()
    found.reset()
    meter.run(Documents(TEXTS), found, "mean")
    torch.testing.assert_close(found.total, first, rtol=0, atol=0)
