"""The GPU path gives what the CPU gives in float64; without a GPU, a rehearsal of the same checks on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import gpu_checks

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize("name", gpu_checks.CHECKS)
def test_on_the_gpu(name: str, tmp_path: Path) -> None:
    if why := gpu_checks.missing(name):
        pytest.skip(why)
    print(gpu_checks.CHECKS[name](tmp_path))
