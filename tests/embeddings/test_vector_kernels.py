"""The loops that parts over vectors share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from dvsel.embeddings.kernels import squared_distance, summing_kernel

Floats = npt.NDArray[np.float32]


@pytest.mark.parametrize("width", [0, 1, 3, 16, 384, 5000])
def test_squared_distance(width: int) -> None:
    one, other = np.random.default_rng(width).normal(size=(2, width)).astype(np.float32)
    exact = ((one.astype(np.float64) - other) ** 2).sum()
    assert squared_distance(one, other) == pytest.approx(exact, rel=1e-5)
    assert squared_distance(one, one.copy()) == 0


def test_what_is_not_finite_stays() -> None:
    one = np.ones(50, np.float32)
    for odd in (np.nan, np.inf):
        other = one.copy()
        other[30] = odd
        np.testing.assert_equal(squared_distance(one, other), odd)


def test_sums_are_added_many_at_once() -> None:
    """In float32 a sum in order stops to grow at 2 ** 24; one in several parts does not."""

    @summing_kernel
    def total(values: Floats) -> np.float32:
        made = np.float32(0)
        for place in range(len(values)):
            made += values[place]
        return made

    assert total(np.ones(1 << 25, np.float32)) > 1 << 24
