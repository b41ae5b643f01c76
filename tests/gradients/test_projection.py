"""Projected gradients, and curvatures of them, against matrices written out in float64."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import pytest
import torch
from gradient_truth import TEXTS, gradients
from hypothesis import given, settings
from hypothesis import strategies as st

import language_models
from dvsel.errors import Notice
from dvsel.gradients.curvature import kfac
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import Layer, choose
from dvsel.gradients.low_rank import Cut, Direction
from dvsel.gradients.moments import Factors, FactorSums
from dvsel.gradients.projection import Bases, ProjectedGradients, pca_bases, random_bases, solved, warn
from dvsel.gradients.target_gradient import Curvature, mean_gradient
from dvsel.language import Documents
from dvsel.language.models import Model

pytestmark = pytest.mark.filterwarnings("ignore:curvature:dvsel.errors.Notice")  # samples are small, and known

RANK = 3
SAMPLE = [*TEXTS, *(text[:40] for text in language_models.TEXTS[20:26])]


def metered(model: Model) -> GradientMeter:
    wanted = "*.c_fc" if type(model.network).__name__.startswith("GPT2") else "*.1.*.o_proj,*.1.mlp.down_proj"
    return GradientMeter(model, choose(model, wanted), 32, 16, batch_tokens=150)


def layer(name: str, outputs: int, inputs: int) -> Layer:
    return Layer(name, torch.nn.Linear(inputs, outputs), inputs, outputs)


def seen(bases: Sequence[Bases], mine: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [one.left.T @ gradient @ one.right for one, gradient in zip(bases, mine, strict=True)]


def by_document(meter: GradientMeter, reduction: str) -> list[list[torch.Tensor]]:
    return [gradients(meter.model, meter.layers, text, 32, 16, reduction) for text in SAMPLE]


def whole(one: Direction) -> torch.Tensor:
    return one.left @ one.right.T


def directions(meter: GradientMeter, curvature: Curvature) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The target's gradient, and what becomes of it, in each layer."""
    query = mean_gradient(meter, Documents(TEXTS[:2]), "mean", "target")
    found = curvature.directions(meter, [query], Documents(SAMPLE), Cut(RANK))
    assert all(one.rank <= RANK for (one,) in found)
    return query.gradients, [whole(one) for (one,) in found]


# --- Bases. ---


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=20), st.integers(1, 40), st.integers(1, 40), st.integers(1, 20))
def test_random_bases_are_orthonormal(name: str, outputs: int, inputs: int, rank: int) -> None:
    found = random_bases(layer(name, outputs, inputs), rank)
    for side, width in ((found.left, outputs), (found.right, inputs)):
        assert side.shape == (width, min(rank, width))
        torch.testing.assert_close(side.T @ side, torch.eye(side.shape[1], dtype=torch.float64), rtol=0, atol=1e-8)


def test_random_bases_come_from_the_name_alone_and_are_the_same_everywhere() -> None:
    def digest(name: str) -> str:
        found = random_bases(layer(name, 48, 100), 16)
        return hashlib.sha256(found.left.numpy().tobytes() + found.right.numpy().tobytes()).hexdigest()[:16]

    assert digest("model.layers.0.mlp.up_proj") == digest("model.layers.0.mlp.up_proj") == "918bc1be7ffa7323"
    assert digest("model.layers.1.mlp.up_proj") != digest("model.layers.0.mlp.up_proj")


def test_pca_bases_are_the_leading_eigenvectors() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, slopes = (torch.randn(50, width, generator=generator, dtype=torch.float64) for width in (8, 5))
    found = pca_bases(Factors(rows.T @ rows, slopes.T @ slopes, 50), RANK)
    for side, data in ((found.right, rows), (found.left, slopes)):
        leading = torch.linalg.svd(data)[2][:RANK]
        torch.testing.assert_close(side @ side.T, leading.T @ leading)


def test_of_a_diagonal_the_largest_lead() -> None:
    found = pca_bases(Factors(torch.tensor([1.0, 9.0, 0.0, 4.0]), torch.eye(2), 3), 2)
    assert found.right.tolist() == [[0, 0], [1, 0], [0, 0], [0, 1]]


# --- What documents are there. ---


@pytest.mark.parametrize(
    ("name", "wanted", "packing"),
    [
        ("llama", "last", False),
        ("llama", "*.1.*.o_proj,*.1.*.down_proj", True),
        ("gpt2", "last", False),
        ("llama", "model.embed_tokens", False),
    ],
)
def test_features_are_projected_gradients(
    name: str, wanted: str, packing: bool, model_of: Callable[..., Model]
) -> None:
    """They are in batches with padding, packed, and of several windows."""
    model = model_of(name)
    layers = choose(model, wanted)
    bases = [random_bases(one, RANK) for one in layers]
    features = ProjectedGradients(layers, bases, len(TEXTS))
    meter = GradientMeter(model, layers, 32, 16, batch_tokens=150, packing=packing)
    meter.run(Documents(TEXTS), features, "mean")
    expected = [seen(bases, gradients(model, layers, text, 32, 16)) for text in TEXTS]
    for number, block in enumerate(features.blocks):
        mine = torch.stack([document[number].flatten() for document in expected])
        torch.testing.assert_close(block, mine, rtol=1e-8, atol=1e-10)
    features.reset()
    assert not any(block.any() for block in features.blocks)


# --- Curvatures of them. ---


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(1e-3, 10))
def test_the_smaller_of_two_matrices_is_solved(documents: int, width: int, damping: float) -> None:
    generator = torch.Generator().manual_seed(documents * 100 + width)
    features = torch.randn(documents, width, generator=generator, dtype=torch.float64)
    query = torch.randn(width, generator=generator, dtype=torch.float64)
    fisher = features.T @ features / documents
    fisher += damping * fisher.trace() / width * torch.eye(width, dtype=torch.float64)
    torch.testing.assert_close(solved(features, query, damping), torch.linalg.solve(fisher, query))


def test_what_rounding_spoils_is_solved_all_the_same() -> None:
    features = torch.ones(5, 3, dtype=torch.float64)
    found = solved(features, torch.tensor([1.0, 1.0, 1.0]), 1e-20)
    torch.testing.assert_close(found, torch.full((3,), 1 / 3, dtype=torch.float64))
    assert torch.isfinite(solved(torch.zeros(5, 3), torch.zeros(3), 0.1)).all()


@pytest.mark.parametrize(
    ("name", "projection", "reduction"),
    [("llama", "target", "mean"), ("llama", "pca", "sum"), ("gpt2", "random", "mean")],
)
def test_fisher_is_that_of_projected_documents(
    name: str, projection: str, reduction: str, model_of: Callable[..., Model]
) -> None:
    meter = metered(model_of(name))
    curvature = Curvature("fisher", 0.1, projection=projection, rank=RANK, reduction=reduction)
    target, found = directions(meter, curvature)
    bases = expected_bases(meter, projection)
    documents = [seen(bases, mine) for mine in by_document(meter, reduction)]
    for number, (basis, gradient) in enumerate(zip(bases, target, strict=True)):
        rows = torch.stack([mine[number].flatten() for mine in documents])
        fisher = rows.T @ rows / len(rows)
        fisher += 0.1 * fisher.trace() / len(fisher) * torch.eye(len(fisher), dtype=torch.float64)
        solution = torch.linalg.solve(fisher, (basis.left.T @ gradient @ basis.right).flatten())
        expected = basis.left @ solution.view(RANK, RANK) @ basis.right.T
        torch.testing.assert_close(found[number], expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max()))


def expected_bases(meter: GradientMeter, projection: str) -> list[Bases]:
    if projection == "random":
        return [random_bases(one, RANK) for one in meter.layers]
    sums = FactorSums(meter.layers)
    meter.run(Documents(SAMPLE), sums, "sum")
    return [pca_bases(one, RANK) for one in sums.factors]


@pytest.mark.parametrize("projection", ["random", "pca"])
def test_without_curvature_it_is_logras_inner_product(projection: str, model_of: Callable[..., Model]) -> None:
    meter = metered(model_of("llama"))
    target, found = directions(meter, Curvature("none", projection=projection, rank=RANK))
    for basis, gradient, one in zip(expected_bases(meter, projection), target, found, strict=True):
        expected = basis.left @ basis.left.T @ gradient @ basis.right @ basis.right.T
        torch.testing.assert_close(one, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("projection", ["random", "pca"])
def test_kfac_is_of_projected_factors(projection: str, model_of: Callable[..., Model]) -> None:
    meter = metered(model_of("llama"))
    target, found = directions(meter, Curvature("kfac", 0.1, projection=projection, rank=RANK))
    sums = FactorSums(meter.layers)
    meter.run(Documents(SAMPLE), sums, "sum")
    for basis, factors, gradient, one in zip(
        expected_bases(meter, projection), sums.factors, target, found, strict=True
    ):
        across, along = (
            damped(side.T @ moments @ side / factors.tokens)
            for side, moments in ((basis.left, factors.outputs), (basis.right, factors.inputs))
        )
        inner = torch.linalg.solve(across, basis.left.T @ gradient @ basis.right) @ torch.linalg.inv(along)
        torch.testing.assert_close(one, basis.left @ inner @ basis.right.T, rtol=1e-7, atol=1e-12)


def damped(moments: torch.Tensor) -> torch.Tensor:
    return moments + 0.1 * moments.trace() / len(moments) * torch.eye(len(moments), dtype=torch.float64)


@pytest.mark.parametrize("projection", ["random", "pca"])
def test_ekfac_is_of_projected_gradients(projection: str, model_of: Callable[..., Model]) -> None:
    meter = metered(model_of("llama"))
    target, found = directions(meter, Curvature("ekfac", 0.1, projection=projection, rank=RANK))
    sums = FactorSums(meter.layers)
    meter.run(Documents(SAMPLE), sums, "sum")
    documents = by_document(meter, "sum")
    for number, (basis, factors) in enumerate(zip(expected_bases(meter, projection), sums.factors, strict=True)):
        base = kfac(basis.factors(factors), 0.1)
        left, right = basis.left @ base.outputs.basis, basis.right @ base.inputs.basis  # type: ignore[operator]
        squares = torch.stack([left.T @ mine[number] @ right for mine in documents]).square().sum(0) / factors.tokens
        inner = (left.T @ target[number] @ right) / (squares + 0.1 * squares.mean())
        torch.testing.assert_close(found[number], left @ inner @ right.T, rtol=1e-6, atol=1e-12)


def test_the_energy_is_what_the_bases_show(model_of: Callable[..., Model]) -> None:
    meter = metered(model_of("llama"))
    query = mean_gradient(meter, Documents(TEXTS), "mean", "target")
    found = Curvature("none", projection="random", rank=RANK).directions(meter, [query], Documents([]), Cut(0))
    for (one,), gradient in zip(found, query.gradients, strict=True):
        assert one.energy == pytest.approx(float(whole(one).square().sum() / gradient.square().sum()))


def test_a_sample_smaller_than_the_fisher_matrix_is_told() -> None:
    with pytest.warns(Notice, match="5 documents of the pool for a matrix of 9 features; .* or a lower --rank"):
        warn(5, 9)
