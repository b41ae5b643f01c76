"""K-FAC and EK-FAC against matrices written out: the Kronecker product, inverted as it stands."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import pytest
import torch
from gradient_truth import TEXTS, gradients

from dvsel.errors import Notice
from dvsel.gradients.curvature import Kronecker, Metric, ekfac, kfac, spectrum, warn
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import Layer, choose
from dvsel.gradients.low_rank import Cut
from dvsel.gradients.moments import Factors
from dvsel.gradients.target_gradient import Curvature
from dvsel.language import Documents
from dvsel.language.models import Model


def second_moments(generator: torch.Generator, width: int, tokens: int) -> torch.Tensor:
    rows = torch.randn(tokens, width, generator=generator, dtype=torch.float64)
    return rows.T @ rows


def some_factors(outputs: int = 4, inputs: int = 6, tokens: int = 50) -> Factors:
    generator = torch.Generator().manual_seed(0)
    return Factors(second_moments(generator, inputs, tokens), second_moments(generator, outputs, tokens), tokens)


def solved(metric: Metric, gradient: torch.Tensor) -> torch.Tensor:
    """H^-1 G, of all ranks."""
    found = metric.direction(gradient, 0, Cut(0))
    return found.left @ found.right.T


def damped(moments: torch.Tensor, tokens: int, damping: float) -> torch.Tensor:
    mean = moments / tokens
    return mean + damping * mean.trace() / len(mean) * torch.eye(len(mean), dtype=torch.float64)


@pytest.mark.parametrize("damping", [0.01, 0.1, 10.0])
def test_kfac_is_the_inverse_of_a_kronecker_product(damping: float) -> None:
    factors = some_factors()
    gradient = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = torch.kron(damped(factors.outputs, 50, damping), damped(factors.inputs, 50, damping))
    expected = torch.linalg.solve(whole, gradient.flatten()).view(4, 6)
    torch.testing.assert_close(solved(kfac(factors, damping), gradient), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("damping", [0.01, 1.0])
def test_ekfac_replaces_the_eigenvalues_of_the_kronecker_product(damping: float) -> None:
    factors = some_factors()
    base = kfac(factors, damping)
    generator = torch.Generator().manual_seed(2)
    squares = torch.rand(4, 6, generator=generator, dtype=torch.float64) * 70
    gradient = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    vectors = torch.kron(base.outputs.basis, base.inputs.basis)  # type: ignore[arg-type]
    values = squares.flatten() / 70 + damping * squares.mean() / 70
    expected = vectors @ ((vectors.T @ gradient.flatten()) / values)
    found = solved(ekfac(base, squares, 70, damping), gradient)
    torch.testing.assert_close(found, expected.view(4, 6), rtol=1e-9, atol=1e-12)


def moments_by_hand(model: Model, layers: Sequence[Layer], texts: Sequence[str]) -> list[Factors]:
    """Inputs and output gradients of every position, kept whole by plain hooks, one document at a time."""
    inputs: dict[str, list[torch.Tensor]] = {layer.name: [] for layer in layers}
    outputs: dict[str, list[torch.Tensor]] = {layer.name: [] for layer in layers}
    for layer in layers:
        layer.module.weight.requires_grad_(True)

    def watch(layer: Layer) -> Callable[..., None]:
        def see(module: object, given: tuple[torch.Tensor], output: torch.Tensor) -> None:
            inputs[layer.name].append(given[0][0].detach())
            output.register_hook(lambda slopes: outputs[layer.name].append(slopes[0]))  # type: ignore[no-untyped-call]

        return see

    handles = [layer.module.register_forward_hook(watch(layer)) for layer in layers]
    for text in texts:
        ids = torch.tensor([[model.card.start, *model.card.tokenizer(text)["input_ids"][1:]]])
        logits = model.network(input_ids=ids[:, :-1]).logits[0]
        torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").backward()  # type: ignore[no-untyped-call]
    for handle in handles:
        handle.remove()
    for layer in layers:
        layer.module.weight.requires_grad_(False).grad = None
    rows = {name: (torch.cat(inputs[name]), torch.cat(outputs[name])) for name in inputs}
    return [Factors(x.T @ x, g.T @ g, len(x)) for x, g in (rows[layer.name] for layer in layers)]


@pytest.mark.filterwarnings("ignore:curvature.*tokens of the pool:dvsel.errors.Notice")  # too few, and known
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_curvature_of_a_model_is_that_of_its_positions(name: str, model_of: Callable[..., Model]) -> None:
    """Padding, of which a batch of all documents has much, counts nothing."""
    model = model_of(name)
    layers = choose(model, "all")
    texts = [text[:60] for text in TEXTS]
    found = Curvature("kfac").metrics(GradientMeter(model, layers), Documents(texts), [])
    for one, factors in zip(found, moments_by_hand(model, layers, texts), strict=True):
        expected = kfac(factors, 0.1)
        assert isinstance(one, Kronecker)
        for side, other in ((one.inputs, expected.inputs), (one.outputs, expected.outputs)):
            torch.testing.assert_close(
                side.basis * side.values @ side.basis.T,  # type: ignore[operator, union-attr]
                other.basis * other.values @ other.basis.T,  # type: ignore[operator, union-attr]
                rtol=1e-8,
                atol=1e-12,
            )


def test_corrected_eigenvalues_are_mean_squares_of_documents(model_of: Callable[..., Model]) -> None:
    """They are of whole documents, over positions, so that they are as large as K-FAC's."""
    model = model_of("llama")
    layers = choose(model, "*.o_proj,*.1.mlp.down_proj")
    meter = GradientMeter(model, layers, 32, batch_tokens=70)
    base, found = (Curvature(kind).metrics(meter, Documents(TEXTS), []) for kind in ("kfac", "ekfac"))
    documents = [gradients(model, layers, text, 32, 16, "sum") for text in TEXTS]
    positions = sum(positions_fed(model, text, 32, 16) for text in TEXTS)
    for number, (one, other) in enumerate(zip(base, found, strict=True)):
        assert isinstance(one, Kronecker) and isinstance(other, Kronecker)
        rotated = [one.outputs.basis.T @ mine[number] @ one.inputs.basis for mine in documents]  # type: ignore[union-attr]
        expected = torch.stack(rotated).square().sum(0) / positions
        torch.testing.assert_close(other.damped, expected + 0.1 * expected.mean(), rtol=1e-7, atol=1e-12)
        # K-FAC takes a document's positions for independent, and inputs and gradients too; so only about as large.
        ratio = float(other.damped.mean() / one.damped.mean())
        assert 0.1 < ratio < 10


def positions_fed(model: Model, text: str, window: int, stride: int) -> int:
    length = len(model.card.tokenizer(text, add_special_tokens=False)["input_ids"])
    fed, done = 0, 0
    for begin in range(0, length, stride):
        end = min(begin + window, length)
        if end > done:
            fed, done = fed + end - begin, end
    return fed


def test_no_curvature_changes_nothing() -> None:
    gradient = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(solved(Metric(), gradient), gradient)


def test_a_layer_without_any_gradient_has_a_curvature() -> None:
    empty = Factors(torch.zeros(3, 3), torch.zeros(2, 2), 10)
    assert torch.isfinite(solved(kfac(empty, 0.1), torch.zeros(2, 3))).all()


def test_moments_of_parts_add_up() -> None:
    one, other = some_factors(tokens=20), some_factors(tokens=50)
    both = one + other
    assert both.tokens == 70
    torch.testing.assert_close(both.inputs, one.inputs + other.inputs)
    torch.testing.assert_close(both.outputs, one.outputs + other.outputs)


def test_a_spectrum_whose_damping_drowns_is_told() -> None:
    steep = torch.diag(torch.tensor([1e9, 1.0, 1.0]))
    assert not spectrum(steep, 0.1).fragile
    assert spectrum(steep, 1e-7).fragile
    layers = [Layer("some.layer", None, 6, 4), Layer("another", None, 6, 4)]
    metrics = [kfac(some_factors(), damping) for damping in (1e-9, 0.1)]
    with pytest.warns(Notice, match="damping is below the rounding of some.layer; .* raise --damping"):
        warn(layers, metrics, 50)
    with pytest.warns(Notice, match="5 tokens of the pool for layers up to 6 wide; .* --factor-documents"):
        warn(layers[1:], metrics[1:], 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn(layers[1:], metrics[1:], 50)
