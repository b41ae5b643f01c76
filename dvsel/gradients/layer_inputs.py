"""Inputs of a layer: vectors, or token numbers, which stand for vectors of zeros with a 1 at the token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from dvsel.linalg.cpu_matmul import multiply


@dataclass(frozen=True)
class OneHot:
    """Rows of zeros with a 1 each: what an embedding, as a linear layer, takes. numbers: int64, of any shape."""

    numbers: torch.Tensor
    width: int

    @property
    def shape(self) -> torch.Size:
        return torch.Size([*self.numbers.shape, self.width])

    def __getitem__(self, where: Any) -> OneHot:
        return OneHot(self.numbers[where], self.width)


Inputs = torch.Tensor | OneHot


def project(inputs: Inputs, matrix: torch.Tensor) -> torch.Tensor:
    """inputs @ matrix, in the inputs' precision where they have one; matrix: (width, columns)."""
    if isinstance(inputs, OneHot):
        return torch.nn.functional.embedding(inputs.numbers, matrix)
    return multiply(inputs, matrix.to(inputs.dtype).T)


def outer(slopes: torch.Tensor, inputs: Inputs) -> torch.Tensor:
    """sum_t g_t x_t^T, (outputs, inputs), of (positions, outputs) and (positions, inputs)."""
    if isinstance(inputs, OneHot):
        return slopes.new_zeros(slopes.shape[1], inputs.width).index_add_(1, inputs.numbers, slopes.T)
    return multiply(slopes.T, inputs.to(slopes.dtype).T)


def overlaps(inputs: Inputs, dtype: torch.dtype) -> torch.Tensor:
    """x_t . x_t' within each row, (rows, length, length)."""
    if isinstance(inputs, OneHot):
        return (inputs.numbers[:, :, None] == inputs.numbers[:, None, :]).to(dtype)
    inputs = inputs.to(dtype)
    return inputs @ inputs.mT


def flat(inputs: Inputs, real: torch.Tensor | None = None) -> Inputs:
    """(positions, width) of (rows, length, width); real: bool (rows, length), the positions to take."""
    if real is not None and real.shape == inputs.shape[:2]:
        return inputs[real.to(_device(inputs))]
    return OneHot(inputs.numbers.flatten(), inputs.width) if isinstance(inputs, OneHot) else inputs.flatten(0, 1)


def _device(inputs: Inputs) -> torch.device:
    return inputs.numbers.device if isinstance(inputs, OneHot) else inputs.device
