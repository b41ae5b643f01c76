"""Products with frozen weights on a CPU, in float32, through oneDNN.

torch gives float32 products to MKL, which uses AVX-512 on Intel's processors alone; oneDNN, which comes with torch too,
uses it wherever there is AVX-512: on an AMD EPYC it is 2.2 times as fast, with rounding errors of the same order.
Elsewhere, in other precisions, and where a weight requires a gradient, torch's own product stays.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from dvsel import private


def quicken(network: torch.nn.Module) -> None:
    """Make the linear layers of a network compute in that way, where it can be done."""
    if available():
        for module in network.modules():
            if type(module) is torch.nn.Linear:
                private.change_class(module, _Linear)


def multiply(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """rows @ weight.T + bias, without a graph. rows: (..., inputs). weight: (outputs, inputs), of any strides."""
    if not (available() and _suits(rows) and _suits(weight)):
        return torch.nn.functional.linear(rows, weight, bias)
    return private.onednn_linear(rows.contiguous(), weight, bias)


@functools.cache
def available() -> bool:
    """Return whether oneDNN is the faster here: the processor has AVX-512, and torch was built with both."""
    backends: Any = torch.backends
    return (
        backends.cpu.get_cpu_capability() == "AVX512"
        and backends.mkl.is_available()
        and backends.mkldnn.is_available()
        and private.has_onednn_linear()
    )


def _suits(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.numel() > 0


class _Linear(torch.nn.Linear):
    """A linear layer whose weights may be frozen."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        is_trained = self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        # Autocast changes the inputs' precision inside torch's own operators, which this one is not.
        if is_trained or not _suits(input) or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        made: torch.Tensor = _Frozen.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return made


class _Frozen(torch.autograd.Function):
    """rows @ weight.T + bias, with a gradient by the rows alone."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return multiply(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, slopes: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return multiply(slopes, weight.T), None, None
