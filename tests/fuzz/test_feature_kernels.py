"""The kernels of n-grams and of fastText: between guarded pages, with bounds checked, and beside plain Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_cases import check, executions


def test_between_guarded_pages(tmp_path: Path) -> None:
    check("kernel_worker.py", tmp_path, executions(300))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 3))
def test_many_between_guarded_pages(tmp_path: Path, seed: int) -> None:
    check("kernel_worker.py", tmp_path, executions(10_000), seed=seed)


@pytest.mark.slow
def test_with_bounds_checked(tmp_path: Path) -> None:
    """Bounds are checked by numba's own indexing, for which kernels are compiled once more."""
    variables = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    check("kernel_worker.py", tmp_path, executions(5_000), **variables)  # type: ignore[arg-type]
