"""Run dvsel as a user does: in this process where only its answer counts, in one of its own where exit codes,
signals and pipes do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from dvsel.cli.app import build

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "dvsel")


@dataclass(frozen=True)
class Answer:
    """What a command gave."""

    code: int
    out: bytes
    err: str


def dvsel(*words: object, stdin: bytes = b"") -> Answer:
    """Run a command in this process."""
    argv = [str(word) for word in words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dvsel", *argv])
        result = CliRunner().invoke(build(argv), argv, input=stdin, prog_name="dvsel")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout_bytes, result.stderr)


def command_of(words: Sequence[str]) -> Any:
    """The command that these words name, as Typer made it."""
    command: Any = typer.main.get_command(build(words))
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    return command


def ok(*words: object, stdin: bytes = b"") -> Answer:
    """Run a command that must succeed."""
    answer = dvsel(*words, stdin=stdin)
    assert answer.code == 0, answer.err
    return answer


def failure(*words: object, stdin: bytes = b"") -> str:
    """Run a command that must fail with 1 and one line; returns the line."""
    answer = dvsel(*words, stdin=stdin)
    assert answer.code == 1, (answer.code, answer.err)
    return one_line(answer.err)


def one_line(err: str) -> str:
    """The only line of stderr, which names cause and remedy and is no traceback."""
    assert err.startswith("dvsel: ") and err.count("\n") == 1, err
    assert "Traceback" not in err
    assert "; " in err, f"no remedy: {err}"
    return err


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with the checkout importable."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])} | more


def start(*words: object, command: tuple[str, ...] = COMMAND, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command in a process of its own, its streams piped unless `options` say otherwise."""
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*command, *map(str, words)], **pipes | {"env": environment()} | options)


def run(
    *words: object, command: tuple[str, ...] = COMMAND, stdin: bytes = b"", timeout: float = 120, **options: Any
) -> Answer:
    """Run a command in a process of its own, started as `start` does."""
    with start(*words, command=command, stdin=subprocess.PIPE, **options) as process:
        out, err = process.communicate(stdin, timeout)
    return Answer(process.returncode, out, err.decode())


def each(flag: str, values: tuple[str, ...]) -> list[str]:
    """The flag before each of the values."""
    return [word for value in values for word in (flag, value)]
