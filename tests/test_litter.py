"""A test that leaves a file in the working directory fails the suite."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from commands import run

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "litter", "--rootdir=.", "-o", "addopts=")


def suite(folder: Path, body: str, *words: str) -> tuple[int, str]:
    """The exit code and the report of three tests, of which the second has this body."""
    source = f"from pathlib import Path\ndef test_a(): pass\ndef test_b(tmp_path):\n    {body}\ndef test_c(): pass\n"
    (folder / "test_made.py").write_text(source)
    answer = run(*words, command=PYTEST, cwd=folder)
    return answer.code, answer.out.decode()


@pytest.mark.parametrize("body", ["Path('out').mkdir()", "Path('out').touch()"])
def test_what_a_test_leaves_is_named_once(tmp_path: Path, body: str) -> None:
    code, report = suite(tmp_path, body)

    assert code == 1
    assert "3 passed, 1 error" in report
    assert f"out: in {tmp_path} since a test" in report


def test_workers_see_it_too(tmp_path: Path) -> None:
    code, report = suite(tmp_path, "Path('out').mkdir()", "-n", "2")

    assert code == 1
    assert f"out: in {tmp_path} since a test" in report


@pytest.mark.parametrize("made", ["tmp_path / 'out'", "Path('.hypothesis')", "Path('.coverage.1')"])
def test_files_elsewhere_and_caches_are_fine(tmp_path: Path, made: str) -> None:
    assert suite(tmp_path, f"({made}).mkdir()")[0] == 0
