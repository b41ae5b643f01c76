"""Token numbers as inputs, beside the vectors of zeros and ones that they stand for."""

from __future__ import annotations

import torch
from gradient_truth import close
from hypothesis import given
from hypothesis import strategies as st

from dvsel.gradients.layer_inputs import OneHot, flat, outer, overlaps, project

WIDTH = 11
rows_of_numbers = st.integers(1, 6).flatmap(
    lambda length: st.lists(
        st.lists(st.integers(0, WIDTH - 1), min_size=length, max_size=length), min_size=1, max_size=4
    )
)


def both(rows: list[list[int]]) -> tuple[OneHot, torch.Tensor]:
    numbers = torch.tensor(rows)
    return OneHot(numbers, WIDTH), torch.nn.functional.one_hot(numbers, WIDTH).double()


@given(rows_of_numbers, st.integers(0, 5))
def test_numbers_stand_for_vectors(rows: list[list[int]], seed: int) -> None:
    short, dense = both(rows)
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(WIDTH, 3, generator=generator, dtype=torch.float64)
    slopes = torch.randn(*dense.shape[:2], 5, generator=generator, dtype=torch.float64)
    real = torch.rand(dense.shape[:2], generator=generator) < 0.7
    assert short.shape == dense.shape and short[0].shape == dense[0].shape
    close(project(short, matrix), project(dense, matrix))
    close(overlaps(short, torch.float64), overlaps(dense, torch.float64))
    close(outer(slopes.flatten(0, 1), flat(short)), outer(slopes.flatten(0, 1), flat(dense)))
    close(outer(slopes[real], flat(short, real)), outer(slopes[real], flat(dense, real)))
    close(outer(slopes[0, 1:], short[0, 1:]), outer(slopes[0, 1:], dense[0, 1:]))


@given(rows_of_numbers)
def test_what_was_pooled_is_taken_whole(rows: list[list[int]]) -> None:
    """One vector for a sequence has no padding, whatever the rows have."""
    short, dense = both([row[:1] for row in rows])
    real = torch.zeros(len(rows), 9, dtype=torch.bool)
    for inputs in (short, dense):
        assert flat(inputs, real).shape == (len(rows), WIDTH)
