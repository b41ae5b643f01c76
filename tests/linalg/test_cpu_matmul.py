"""Products through oneDNN are those of torch, and so are the gradients behind them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from dvsel.linalg import cpu_matmul  # noqa: E402  (needs it)

SHAPES = [(1, 1, 1), (3, 7, 5), (33, 64, 16), (130, 96, 257)]


@pytest.fixture
def made() -> Any:
    """A network, before."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(24, 40), torch.nn.GELU(), torch.nn.Linear(40, 8, bias=False)]
    return torch.nn.Sequential(*layers).requires_grad_(False)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_those_of_torch_whatever_the_strides(shape: tuple[int, int, int], bias: bool) -> None:
    rows, inputs, outputs = shape
    x, w = torch.randn(2, rows, inputs), torch.randn(outputs, inputs)
    b = torch.randn(outputs) if bias else None
    gap = torch.randn(2, rows, 2 * inputs)[..., ::2]
    for left, right in ((x, w), (x, w.T.contiguous().T), (gap, w)):
        wanted = torch.nn.functional.linear(left.double(), right.double(), None if b is None else b.double())
        torch.testing.assert_close(cpu_matmul.multiply(left, right, b).double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_torchs_own(dtype: Any) -> None:
    x, w = torch.randn(5, 8, dtype=dtype), torch.randn(6, 8, dtype=dtype)
    assert torch.equal(cpu_matmul.multiply(x, w), torch.nn.functional.linear(x, w))


def test_no_rows() -> None:
    assert cpu_matmul.multiply(torch.randn(0, 8), torch.randn(6, 8)).shape == (0, 6)


@pytest.mark.parametrize("trained", [False, True])
def test_a_network_gives_what_it_gave_and_so_do_gradients(trained: bool, made: Any) -> None:
    quick = copy.deepcopy(made).requires_grad_(trained)
    cpu_matmul.quicken(quick)
    found = []
    for network in (made, quick):
        x = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(1), requires_grad=True)
        output = network(x)
        output.square().sum().backward()
        found.append((output, x.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)
    assert (quick[0].weight.grad is not None) == trained


def test_a_copy_in_double_computes_in_double(made: Any) -> None:
    quick = copy.deepcopy(made)
    cpu_matmul.quicken(quick)
    x = torch.randn(4, 24, dtype=torch.float64)
    assert torch.equal(copy.deepcopy(quick).double()(x), made.double()(x))


def test_where_it_cannot_be_done_nothing_changes(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_matmul, "available", lambda: False)
    cpu_matmul.quicken(made)
    assert type(made[0]) is torch.nn.Linear
    x = torch.randn(4, 24)
    assert torch.equal(cpu_matmul.multiply(x, made[0].weight), x @ made[0].weight.T)
