"""The GPU path gives what the CPU gives in float64; without a GPU, a rehearsal of the same checks on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import gpu_checks

if TYPE_CHECKING:
    from dvsel.language.models import Model

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize("name", gpu_checks.CHECKS)
def test_on_the_gpu(name: str, tmp_path: Path) -> None:
    if why := gpu_checks.missing(name):
        pytest.skip(why)
    print(gpu_checks.CHECKS[name](tmp_path))


@pytest.mark.parametrize(
    "name", ["gradients: classifier, BERT", "fit: kfac", "losses", "vectors", "spread over a GPU and the CPU"]
)
def test_a_difference_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model on the GPU and the one on the CPU do not have the same weights."""
    monkeypatch.setattr(gpu_checks, "exact", changed(gpu_checks.exact))
    if why := gpu_checks.missing(name):
        pytest.skip(why)
    with pytest.raises(AssertionError, match="off by more than"):
        gpu_checks.CHECKS[name](tmp_path)


def changed(exact: Callable[[Model], Model]) -> Callable[[Model], Model]:
    def make(model: Model) -> Model:
        found = exact(model)
        for weight in found.network.parameters():
            if weight.ndim == 2:
                weight.data *= 1.01
        return found

    return make


def test_what_is_not_finite_is_no_small_difference() -> None:
    assert gpu_checks.error([1.0, float("nan")], [1.0, 2.0]) == float("inf")
    with pytest.raises(AssertionError, match="shapes differ"):
        gpu_checks.error([1.0], [1.0, 2.0])
