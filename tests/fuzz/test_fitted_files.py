"""Fitted files of all scorers, changed in every way: scores or one line, and never anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_cases import check, executions

import fitted_files
from dvsel.interface.registry import SCORERS, registered

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("fasttext")

WITHOUT_MODELS = ("dsir", "fasttext", "preselect", "distilled", "target", "label-noise")  # which are quick


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        fitted_files.write(folder)
    return folder


def forms(folder: Path, quick: bool) -> list[str]:
    names = [path.stem for path in sorted(folder.glob("*.fitted"))]
    return [name for name in names if name.startswith(WITHOUT_MODELS) == quick]


@pytest.mark.filterwarnings("ignore")
def test_changed_files(files: Path) -> None:
    assert {path.stem for path in files.glob("*.fitted")} >= registered(SCORERS).keys()
    assert check("fitted_worker.py", files, executions(300), *forms(files, quick=True))["scored"]
    assert check("fitted_worker.py", files, executions(60), *forms(files, quick=False))["scored"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_changed_files(files: Path, seed: int) -> None:
    check("fitted_worker.py", files, executions(25_000), *forms(files, quick=True), seed=seed)
    check("fitted_worker.py", files, executions(7_500), *forms(files, quick=False), seed=seed)
