"""Inner products and norms of documents' gradients against autograd, one document at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from gradient_truth import MODELS, TEXTS, gradients, in_double, loss

from dvsel.gradients import target_gradient
from dvsel.gradients.compare import PositionScores, Scores, Thin, Whole, comparison, norms
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import Layer, choose
from dvsel.gradients.low_rank import Cut, Direction
from dvsel.language import Documents
from dvsel.language.models import Model

Directions = list[list[Direction]]


def random_directions(layers: Sequence[Layer], ranks: Sequence[int], dtype: torch.dtype = torch.float64) -> Directions:
    """Make one direction of each rank in every layer."""
    generator = torch.Generator().manual_seed(0)
    return [
        [
            Direction(
                torch.randn(layer.outputs, rank, generator=generator, dtype=torch.float64).to(dtype),
                torch.randn(layer.inputs, rank, generator=generator, dtype=torch.float64).to(dtype),
            )
            for rank in ranks
        ]
        for layer in layers
    ]


def whole(one: Direction) -> torch.Tensor:
    return one.left.double() @ one.right.double().T


def truth(
    model: Model, layers: Sequence[Layer], directions: Directions, meter: GradientMeter, reduction: str = "mean"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Products (documents, groups) and squared norms (documents,)."""
    found = [gradients(model, layers, text, meter.window, meter.stride, reduction) for text in TEXTS]
    products = [
        [sum((one * whole(layer[group])).sum() for one, layer in zip(mine, directions, strict=True))
         for group in range(len(directions[0]))]
        for mine in found
    ]  # fmt: skip
    return torch.tensor(products), torch.tensor([sum(one.square().sum() for one in mine) for mine in found])


def run(meter: GradientMeter, directions: Directions, reduction: str = "mean", with_norms: bool = True) -> Scores:
    groups = len(directions[0])
    scores = Scores([comparison(layer) for layer in directions], len(TEXTS), groups, "cpu", with_norms)
    meter.run(Documents(TEXTS), scores, reduction)
    return scores


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("window", "stride"), [(64, 0), (32, 20), (24, 24)])
def test_products_and_norms_in_double(name: str, window: int, stride: int, model_of: Callable[..., Model]) -> None:
    """Batches of several lengths, with padding, and documents of several windows; two groups, of unlike rank."""
    model = model_of(name)
    layers = choose(model, "all")
    meter = GradientMeter(model, layers, window, stride, batch_tokens=150)
    directions = random_directions(layers, [1, 5])
    products, squares = truth(model, layers, directions, meter)
    scores = run(meter, directions)
    torch.testing.assert_close(scores.products, products, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(scores.squares, squares, rtol=1e-8, atol=0)
    alone = run(meter, directions, with_norms=False)  # batches otherwise, with the long document among the others
    torch.testing.assert_close(alone.products, products, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "qwen2"])
def test_products_and_norms_in_single(name: str, model_of: Callable[..., Model]) -> None:
    model = model_of(name, torch.float32)
    layers = choose(model, "all")
    meter = GradientMeter(model, layers, 32, 20)
    directions = random_directions(layers, [3], torch.float32)
    exact = in_double(model)
    products, squares = truth(exact, choose(exact, "all"), directions, meter)
    scores = run(meter, directions)
    reach = squares.sqrt()[:, None] * norms(directions)
    assert float(((scores.products - products).abs() / reach).max()) < 1e-5
    torch.testing.assert_close(scores.squares, squares, rtol=1e-5, atol=0)


@pytest.mark.parametrize("ranks", [[1], [40], [40, 2]])
def test_whole_matrices_are_taken_where_they_are_less_work(ranks: list[int], model_of: Callable[..., Model]) -> None:
    model = model_of("llama")
    layers = choose(model, "all")
    meter = GradientMeter(model, layers, 32)
    directions = random_directions(layers, ranks)
    kinds = {type(comparison(layer)) for layer in directions}
    assert kinds == ({Thin} if ranks == [1] else {Whole} if ranks == [40] else kinds)
    products, _ = truth(model, layers, directions, meter)
    torch.testing.assert_close(run(meter, directions).products, products, rtol=1e-8, atol=1e-10)


def test_the_sum_of_losses_is_the_mean_times_tokens(model_of: Callable[..., Model]) -> None:
    model = model_of("llama")
    layers = choose(model, "all")
    meter = GradientMeter(model, layers, 32)
    directions = random_directions(layers, [2])
    products, squares = truth(model, layers, directions, meter, "sum")
    scores = run(meter, directions, "sum")
    torch.testing.assert_close(scores.products, products, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(scores.squares, squares, rtol=1e-8, atol=0)


def test_cosines_are_of_all_layers_together(model_of: Callable[..., Model]) -> None:
    model = model_of("gpt2")
    layers = choose(model, "all")
    meter = GradientMeter(model, layers, 32)
    directions = random_directions(layers, [2, 3])
    long = [torch.cat([whole(layer[group]).flatten() for layer in directions]) for group in range(2)]
    expected = [
        [torch.cosine_similarity(torch.cat([one.flatten() for one in gradients(model, layers, text, 32, 16)]), q, 0)
         for q in long]
        for text in TEXTS
    ]  # fmt: skip
    found = run(meter, directions).cosines(norms(directions))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-12)


def test_a_step_on_a_document_lowers_the_targets_loss_by_its_score(model_of: Callable[..., Model]) -> None:
    """Finite differences, in float64: the loss on the target falls by the step times the score, to first order."""
    model = in_double(model_of("llama"))
    layers = choose(model, "all")
    meter = GradientMeter(model, layers, 32)
    target = target_gradient.mean_gradient(meter, Documents(TEXTS[:1]), "mean", "target")
    found = target_gradient.find(meter, [target], target_gradient.Curvature("none"), Documents([]), Cut(0))
    scores = run(meter, [list(one) for one in found.directions]).products[:, 0]
    step = 1e-5
    for text, score in zip(TEXTS[1:3], scores[1:3].tolist(), strict=True):
        slopes = gradients(model, layers, text, 32, 16)
        after = []
        for sign in (-1, 1):
            for layer, slope in zip(layers, slopes, strict=True):
                layer.module.weight.data += sign * step * slope
            after.append(float(loss(model, TEXTS[0], 32, 16)))
            for layer, slope in zip(layers, slopes, strict=True):
                layer.module.weight.data -= sign * step * slope
        assert (after[1] - after[0]) / (2 * step) == pytest.approx(score, rel=1e-5)


@pytest.mark.parametrize("ranks", [[3], [40]])
def test_positions_add_up_to_the_product(ranks: list[int], model_of: Callable[..., Model]) -> None:
    """They do by windows too: the first tokens of a second window have parts in both."""
    model = model_of("llama")
    layers = choose(model, "all")
    meter = GradientMeter(model, layers, 32, 20, batch_tokens=150)
    directions = random_directions(layers, ranks)
    comparisons = [comparison(layer) for layer in directions]
    lengths = [len(one) for one in meter.objective.read(Documents(TEXTS)).ids]
    parts = PositionScores(comparisons, lengths)
    meter.run(Documents(TEXTS), parts, "mean")
    assert [len(one) for one in parts.totals] == lengths and all(one[-1] == 0 for one in parts.totals)
    sums = torch.stack([one.sum() for one in parts.totals])
    torch.testing.assert_close(sums, run(meter, directions).products[:, 0], rtol=1e-8, atol=1e-10)


def test_a_positions_part_is_that_of_its_input_and_its_outputs_gradient(model_of: Callable[..., Model]) -> None:
    model = model_of("gpt2")
    (layer,) = choose(model, "transformer.h.1.mlp.c_fc")
    directions = random_directions([layer], [2])
    seen: list[torch.Tensor] = []

    def see(_: object, given: tuple[torch.Tensor], output: torch.Tensor) -> None:
        seen.append(given[0][0].detach())
        output.requires_grad_(True).register_hook(lambda slopes: seen.append(slopes[0]))  # type: ignore[no-untyped-call]

    handle = layer.module.register_forward_hook(see)
    loss(model, TEXTS[0], 64, 32).backward()
    handle.remove()
    expected = ((seen[1] @ whole(directions[0][0])) * seen[0]).sum(1)
    parts = PositionScores([comparison(directions[0])], [len(expected) + 1])
    GradientMeter(model, [layer]).run(Documents(TEXTS[:1]), parts, "mean")
    torch.testing.assert_close(parts.totals[0][:-1], expected, rtol=1e-8, atol=1e-12)
