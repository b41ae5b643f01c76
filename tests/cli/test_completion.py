"""What a shell offers for an unfinished command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from commands import environment
from dvsel.cli.command_table import COMMANDS
from dvsel.interface.registry import SCORERS, SELECTORS, registered

OFFERED = {
    "dvsel s": {name for name in COMMANDS if name.startswith("s")},
    "dvsel score d": {name for name in registered(SCORERS) if name.startswith("d")},
    "dvsel fit per": {"perplexity"},
    "dvsel score dsir --min": {"--min-words"},
    "dvsel score dsir --normalise ": {"none", "length"},
    "dvsel score dsir --text-field 'meta.te": set(),
    "dvsel select --method r": {name for name in registered(SELECTORS) if name.startswith("r")},
    "dvsel select --with ds": {"dsir"},
    "dvsel select --method resample --tem": {"--temperature"},
    "dvsel select --with dsir --min-w": {"--min-words"},
    "dvsel embed --poo": {"--pooling"},
}

BASH = """
source <(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION=1 dvsel --show-completion bash)
COMP_WORDS=({words}) COMP_CWORD={at}
$(complete -p dvsel | sed 's/.*-F \\([^ ]*\\) .*/\\1/') dvsel
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def shell(name: str, script: str, folder: Path) -> set[str]:
    """The lines that a script writes, `dvsel` being this checkout's."""
    command = folder / "dvsel"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m dvsel "$@"\n')
    command.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    words = [name, "--norc", "-c", script] if name == "bash" else [name, "-f", "-c", script]
    done = subprocess.run(
        words, env=environment(PATH=path, COLUMNS="200"), cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("line", ["dvsel score d", "dvsel score dsir --min", "dvsel select --method r", "dvsel s"])
def test_bash_completes(line: str, tmp_path: Path) -> None:
    words = line.split(" ")
    assert shell("bash", BASH.format(words=line, at=len(words) - 1), tmp_path) == OFFERED[line]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
@pytest.mark.parametrize("line", ["dvsel score d", "dvsel select --method r"])
def test_zsh_completes(line: str, tmp_path: Path) -> None:
    script = f"env _TYPER_COMPLETE_ARGS={line!r} _DVSEL_COMPLETE=complete_zsh dvsel"
    assert all(name in " ".join(shell("zsh", script, tmp_path)) for name in OFFERED[line])


@pytest.mark.parametrize("line", OFFERED)
@pytest.mark.parametrize("asked", ["complete_bash", "complete_zsh"])
def test_what_the_scripts_of_shells_ask_is_answered(line: str, asked: str, tmp_path: Path) -> None:
    """As `--show-completion` has the shells ask, which need not be here."""
    variables = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))} if asked == "complete_bash" else {}
    done = subprocess.run(
        [sys.executable, "-m", "dvsel"],
        env=environment(_DVSEL_COMPLETE=asked, _TYPER_COMPLETE_ARGS=line, COLUMNS="200", **variables),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if asked == "complete_bash":
        assert set(done.stdout.split()) == OFFERED[line]
    else:
        assert all(f'"{name}"' in done.stdout for name in OFFERED[line])


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_the_script_of_a_shell_is_installed(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvsel", "--install-completion", name],
        env=environment(HOME=str(tmp_path), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"),  # so that it is named
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f".{name}rc").exists()
