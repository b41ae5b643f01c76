"""The page about Python runs as it stands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dvsel
import language_models
from commands import ROOT, environment
from dvsel.commands.demo import build

PAGE = ROOT / "docs" / "python.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the demo ran, with an encoder."""
    for package in ("torch", "transformers", "polars", "duckdb", "pandas"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("page")
    build(folder / "dvsel-demo")
    shutil.rmtree(folder / "dvsel-demo" / ".dvsel")
    (folder / "dvsel-demo" / "pool" / "sources.jsonl.zst").unlink()  # most of the text
    language_models.build(folder / "models" / "all-MiniLM-L6-v2", "bert", task="MaskedLM")
    return folder


def test_the_page_runs(folder: Path) -> None:
    """As a script of its own, in which nothing guards the calls."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    (folder / "page.py").write_text("".join(blocks))

    done = subprocess.run([sys.executable, "page.py"], cwd=folder, env=environment(), capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+ documents, \d+ tokens\n", done.stdout)


def test_the_page_names_all_functions() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert [name for name in dvsel.__all__ if name not in page] == ["__version__"]
