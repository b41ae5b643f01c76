"""Help: there for every command and every option, with an example to copy, and instant."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
import typer.main

from commands import COMMAND, dvsel, ok, run
from dvsel.cli import COMMANDS
from dvsel.cli.app import build
from dvsel.options import fields_of
from dvsel.plugins import SCORERS, SELECTORS, found, scorer_class, selector_class

HEAVY = {"numpy", "torch", "transformers", "datasets", "numba", "pyarrow", "polars", "sklearn", "zstandard", "fsspec"}
PAGES = [
    [],
    *([name] for name in COMMANDS),
    *([command, name] for command in ("score", "fit") for name in found(SCORERS)),
    *(["select", "--method", name] for name in found(SELECTORS)),
    *(["select", "--with", name] for name in found(SCORERS)),
]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def title(words: list[str]) -> str:
    return " ".join(words) or "dvsel"


def help_of(words: list[str]) -> str:
    """A help page as plain text, boxes and line breaks removed."""
    page = ok(*words, "--help").out.decode()
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", page).split())


def command_of(words: list[str]) -> Any:
    """The command that these words name, as Typer made it."""
    command: Any = typer.main.get_command(build(words))
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    return command


@pytest.mark.parametrize("words", PAGES, ids=title)
def test_every_page_has_an_example_to_copy(words: list[str]) -> None:
    page = help_of(words)
    command = (
        f"dvsel {words[0]} " if words and len(words) != 1 else f"dvsel {title(words).removeprefix('dvsel')}".strip()
    )
    assert page.count(command) >= (1 if words in (["score"], ["fit"]) else 2), page


@pytest.mark.parametrize("words", PAGES, ids=title)
def test_every_option_is_explained(words: list[str]) -> None:
    for parameter in command_of(words).params:
        assert getattr(parameter, "help", ""), f"{title(words)}: {parameter.name} has no help"


@pytest.mark.parametrize("words", PAGES, ids=title)
def test_both_flags_ask_for_help(words: list[str]) -> None:
    assert dvsel(*words, "-h").out == ok(*words, "--help").out


def test_the_page_of_a_command_shows_every_option_of_its_plug_in() -> None:
    for name in found(SCORERS):
        for page in (help_of(["score", name]), help_of(["fit", name]), help_of(["select", "--with", name])):
            for option in fields_of(scorer_class(name)):
                assert f"--{option.rstrip('_').replace('_', '-')}" in page
    for name in found(SELECTORS):
        page = help_of(["select", "--method", name])
        for option in fields_of(selector_class(name)):
            assert f"--{option.rstrip('_').replace('_', '-')}" in page


def test_defaults_are_shown() -> None:
    page = help_of(["score", "dsir"])
    assert "default: 10000" in page and "default: text" in page and "default: uniform" in page


def test_the_main_page_names_every_command() -> None:
    page = help_of([])
    for name, summary in COMMANDS.items():
        assert f"{name} {summary.split('.')[0]}" in page


def test_scorers_are_named_without_loading_them() -> None:
    assert "dsir" in help_of(["score"])
    assert "dvsel.scorers.dsir" not in imported("score", "--help")


def imported(*words: str) -> set[str]:
    """The modules that a command imports."""
    command = (sys.executable, "-X", "importtime", *COMMAND[1:])
    answer = run(*words, command=command)
    assert answer.code == 0, answer.err
    return {line.rpartition("|")[2].strip() for line in answer.err.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["score", "--help"]], ids=title)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    assert {name.partition(".")[0] for name in imported(*words)} & HEAVY == set()


@pytest.mark.parametrize("words", [["score", "dsir", "--help"], ["select", "--help"]], ids=title)
def test_help_of_a_method_imports_no_framework(words: list[str]) -> None:
    frameworks = HEAVY - {"numpy", "numba", "pyarrow", "zstandard", "fsspec"}
    assert {name.partition(".")[0] for name in imported(*words)} & frameworks == set()
