"""Directions: whole they are H^-1 G; cut they are the best of their rank where H is the identity."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.gradients.curvature import Kronecker, Metric, ekfac, kfac
from dvsel.gradients.low_rank import Cut, Direction
from dvsel.gradients.moments import Factors


def some(seed: int, outputs: int = 5, inputs: int = 8) -> tuple[torch.Tensor, Kronecker, Kronecker]:
    """A gradient, a K-FAC and an EK-FAC."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    rows, slopes = draw(40, inputs), draw(40, outputs)  # type: ignore[no-untyped-call]
    base = kfac(Factors(rows.T @ rows, slopes.T @ slopes, 40), 0.1)
    return draw(outputs, inputs), base, ekfac(base, draw(outputs, inputs).square(), 3, 0.1)  # type: ignore[no-untyped-call]


def whole(one: Direction) -> torch.Tensor:
    return one.left @ one.right.T


def roots(metric: Kronecker) -> tuple[torch.Tensor, torch.Tensor]:
    """S^1/2 and A^1/2."""
    return tuple(side.basis * side.values.sqrt() @ side.basis.T for side in (metric.outputs, metric.inputs))  # type: ignore[operator, return-value, union-attr]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([(5, 8), (8, 5), (6, 6), (1, 4)]))
def test_at_full_rank_nothing_is_lost(seed: int, shape: tuple[int, int]) -> None:
    gradient, base, corrected = some(seed, *shape)
    across, along = roots(base)
    expected = torch.linalg.solve(across @ across, gradient) @ torch.linalg.inv(along @ along)
    for rank, energy in ((0, 0.0), (min(shape), 0.0), (99, 0.0), (1, 1.0)):
        found = base.direction(gradient, 0, Cut(rank, energy))
        torch.testing.assert_close(whole(found), expected, rtol=1e-8, atol=1e-10)
        assert found.energy == pytest.approx(1)
    rotated = (base.outputs.basis.T @ gradient @ base.inputs.basis) / corrected.damped  # type: ignore[operator, union-attr]
    torch.testing.assert_close(
        whole(corrected.direction(gradient, 0, Cut(0))),
        base.outputs.basis @ rotated @ base.inputs.basis.T,  # type: ignore[operator, union-attr]
    )
    torch.testing.assert_close(whole(Metric().direction(gradient, 0, Cut(0))), gradient)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_cut_is_the_best_of_its_rank_in_the_whitened_space(rank: int) -> None:
    gradient, base, corrected = some(3)
    for metric in (base, corrected):
        across, along = roots(metric)
        exact = across @ whole(metric.direction(gradient, 0, Cut(0))) @ along
        cut = across @ whole(metric.direction(gradient, 0, Cut(rank))) @ along
        left, values, right = torch.linalg.svd(exact)
        best = left[:, :rank] * values[:rank] @ right[:rank]
        torch.testing.assert_close(cut, best, rtol=1e-8, atol=1e-10)
        kept = float(values[:rank].square().sum() / values.square().sum())
        assert metric.direction(gradient, 0, Cut(rank)).energy == pytest.approx(kept)


@given(st.integers(0, 100), st.floats(0.01, 0.999))
def test_energy_takes_the_least_rank_that_keeps_it(seed: int, energy: float) -> None:
    gradient, base, _ = some(seed)
    found = base.direction(gradient, 0, Cut(1, energy))
    assert found.energy >= energy - 1e-12
    assert found.rank == 1 or base.direction(gradient, 0, Cut(found.rank - 1)).energy < energy


def test_products_and_scale() -> None:
    gradient, base, _ = some(0)
    found = base.direction(gradient, 0, Cut(2))
    assert found.times(gradient) == pytest.approx(float((gradient * whole(found)).sum()))
    assert found.scaled(3.0).times(gradient) == pytest.approx(3 * found.times(gradient))
    assert found.times(gradient.float()) == pytest.approx(found.times(gradient), rel=1e-5)


def test_a_layer_without_a_gradient_has_a_direction() -> None:
    _, base, _ = some(0)
    for energy in (0.0, 0.9):
        found = base.direction(torch.zeros(5, 8), 0, Cut(3, energy))
        assert found.energy == 1 and not whole(found).any()
