"""Commands made from options dataclasses: a field is a flag, and what a flag says is honoured or refused."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import typer
from typer.testing import CliRunner, Result

from dvsel.cli.flags import Group, Values, add, command
from dvsel.options import Options, option, under


@dataclass(frozen=True)
class Making(Options):
    """Options of every kind."""

    names: tuple[str, ...] = option((), "names")
    centre: bool = option(True, "whether to centre")
    kind: str = option("a", "kind", choices=("a", "b"))
    count: int = option(3, "count", minimum=1)
    deep: int | None = option(None, "how deep", when=under("kind", "b"))
    hidden: int = 5


def run(*words: str, prefix: str = "") -> tuple[Result, dict[str, Values]]:
    """A command of two groups with the same options, and the values that it was called with."""
    called: dict[str, Values] = {}

    def body(arguments: list[str], values: dict[str, Values]) -> None:
        called.update(values)
        print(arguments, values["Making"].make(Making))

    groups = [Group("Making", Making), *([Group("Other", Making, prefix=prefix)] if prefix else [])]
    app = typer.Typer()
    app.callback()(lambda: None)
    add(app, "make", command(body, groups, "Make.", "what"))
    return CliRunner().invoke(app, ["make", *words]), called


def test_fields_are_flags_with_their_defaults() -> None:
    result, called = run("x", "y")

    assert result.stdout.strip() == f"{['x', 'y']} {Making()}"
    assert called["Making"].given == set()


def test_flags_say_what_was_given() -> None:
    result, called = run("--names", "x", "--names", "y", "--no-centre", "--kind", "b", "--deep", "2", "--count", "3")

    assert result.stdout.strip() == f"[] {Making(('x', 'y'), False, 'b', 3, 2)}"
    assert called["Making"].given == {"names", "centre", "kind", "deep", "count"}


def test_both_spellings_are_taken() -> None:
    assert "centre=False" in run("--no-center")[0].stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--deep", "2"], 1, "dvsel: --deep: belongs to --kind b; add that, or drop it\n"),
        (["--count", "0"], 1, "count 0: out of range"),
        (["--kind", "c"], 2, "'c' is not one of 'a', 'b'"),
        (["--hidden", "6"], 2, "no option --hidden"),
    ],
)
def test_what_cannot_be_honoured_is_refused(words: list[str], code: int, says: str) -> None:
    result, _ = run(*words)

    assert result.exit_code == code
    assert says in result.stderr


def test_groups_with_the_same_flag_are_told_apart_by_the_prefix() -> None:
    _, called = run("--count", "4", "--other-count", "7", prefix="other")

    assert called["Making"]["count"] == 4 and called["Other"]["count"] == 7
    assert called["Making"].given == called["Other"].given == {"count"}
