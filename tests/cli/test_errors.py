"""The last resort of a command: what input can bring about almost everywhere is a line, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer

import corpus
from commands import failure, one_line
from dvsel.cli.errors import with_exit_codes


def deep() -> None:
    deep()


def no_text() -> None:
    "\ud800".encode()


def large() -> None:
    bytearray(1 << 62)


@pytest.mark.parametrize(
    ("body", "says"), [(deep, "nested too deeply"), (no_text, "is not UTF-8"), (large, "out of memory")]
)
def test_it_is_one_line(body: Callable[[], None], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        with_exit_codes(body)()
    assert ended.value.exit_code == 1
    assert says in one_line(capsys.readouterr().err)


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        with_exit_codes(lambda: 1 / 0)()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("select", "scores", "--budget", "5%", "-o", "x", "-w", "-1"), "workers -1: out of range; give 0 to 1024"),
        (("score", "dsir", "pool", "-o", "x", "-w", "99999"), "workers 99999: out of range; give 0 to 1024"),
        (("select", "scores", "--budget", "5%", "-o", "x", "--seed=-1"), "seed -1: out of range; give 0 to 92233"),
        (("fit", "dsir", "--pool", "pool", "-o", "x", "--seed", "9" * 30), "out of range; give 0 to 92233"),
        (("select", "scores", "-o", "x", "--min-score", "nan"), "min_score nan: out of range; give a number"),
        (("score", "dsir", "pool", "-o", "x", "--text-field", "\udcff"), "this name is not UTF-8"),
    ],
)
def test_values_out_of_range(
    words: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pool", "scores"):
        corpus.write(tmp_path / name / "a.jsonl", corpus.pool()[:3])
    assert says in failure(*words)
