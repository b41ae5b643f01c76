"""The arithmetic of the kernels. What they compute of a text is tested in `test_folded`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.fasttext.kernels.ngrams import remainder

LARGEST = 2**64 - 1


def check(value: int, divisor: int) -> None:
    found = remainder(np.uint64(value), np.uint64(divisor), np.uint64(LARGEST // divisor))
    assert found == value % divisor


@settings(deadline=None, max_examples=500)
@given(st.integers(0, LARGEST), st.integers(1, 2**31 - 1))
def test_remainder_of_any_number(value: int, divisor: int) -> None:
    check(value, divisor)


@pytest.mark.parametrize("divisor", [1, 2, 3, 7, 2**16, 2_000_000, 2**21, 2**31 - 1, 2**31])
def test_remainder_around_multiples_and_at_the_ends(divisor: int) -> None:
    quotients = [0, 1, 2, LARGEST // divisor - 1, LARGEST // divisor]
    near = [quotient * divisor + shift for quotient in quotients for shift in (-1, 0, 1)]
    for value in [*near, 0, LARGEST - 1, LARGEST]:
        if 0 <= value <= LARGEST:
            check(value, divisor)
