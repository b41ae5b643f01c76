"""fastText's model files: sound ones beside the library, damaged ones as one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_cases import check, executions

pytest.importorskip("fasttext")


def test_sound_and_damaged_files(tmp_path: Path) -> None:
    found = check("model_worker.py", tmp_path, executions(300))
    assert min(found["refused"], found["scored"], found["as the library"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 3))
def test_many_sound_and_damaged_files(tmp_path: Path, seed: int) -> None:
    check("model_worker.py", tmp_path, executions(20_000), seed=seed)
