"""Write docs/cli-reference.md from the commands themselves: what `--help` shows, as Markdown.

    python docs/generate.py

Only dvsel's own scorers and selectors are shown, whatever other packages are installed. A test fails while the page
is not what this makes.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from dvsel.cli import COMMANDS
from dvsel.cli.app import build
from dvsel.plugins import SCORERS, SELECTORS, found

PAGE = Path(__file__).parent / "cli-reference.md"
_INTRODUCTION = """# Command line

Made from the commands by `docs/generate.py`; `dvsel COMMAND --help-all` says the same, and `--help` what matters most.
[command-line.md](command-line.md) says what holds for all of them. Options that have a value by
themselves show it as the default.

- Exit codes: 0 done, 1 failed (one line on stderr says where, why and what to do), 2 wrong usage, 130 interrupted.
- stdout carries data only (documents, or JSON with `--json`); progress and summaries go to stderr.
- `dvsel --debug COMMAND ...` shows a traceback with an error.
"""

Parameters = Mapping[str, inspect.Parameter]


def reference() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    for name in COMMANDS:
        if name in ("score", "fit"):
            yield f"## dvsel {name} NAME\n\n{COMMANDS[name]}\n"
            for scorer in own(SCORERS):
                yield from _command(f"{name} {scorer}", "###")
        else:
            yield from _command(name, "##")
        if name == "select":
            yield from _choices(name)


def _choices(name: str) -> Iterator[str]:
    """The options that a selector or a scorer adds to a command."""
    plain = parameters(command(name))
    for flag, group in (("--method", SELECTORS), ("--with", SCORERS)):
        for choice in own(group):
            body = command(f"{name} {flag} {choice}")
            more = {key: one for key, one in parameters(body).items() if key not in plain}
            yield f"### dvsel {name} {flag} {choice}\n"
            yield from _tables(more) if more else ["No further options.\n"]


def own(group: str) -> list[str]:
    """The names in an entry point group that dvsel itself provides."""
    return [name for name, point in found(group).items() if point.value.startswith("dvsel.")]


def command(words: str) -> Callable[..., Any]:
    """The function behind a command line."""
    first, *rest = words.split()
    app = build([first, *(rest or ["--help"])])
    commands = {one.name: one for one in app.registered_commands}
    if first not in commands:
        group = next(one for one in app.registered_groups if one.name == first).typer_instance
        assert group is not None
        commands = {one.name: one for one in group.registered_commands}
        first = rest[0]
    body = commands[first].callback
    assert body is not None
    body.__doc__ = commands[first].help or body.__doc__
    return body


def parameters(body: Callable[..., Any]) -> Parameters:
    """A command's arguments and options."""
    found = inspect.signature(body, eval_str=True).parameters
    return {name: one for name, one in found.items() if name not in ("context", "help_all")}


def _command(words: str, heading: str) -> Iterator[str]:
    body = command(words)
    about, _, examples = inspect.cleandoc(body.__doc__ or "").partition("\b")
    yield f"{heading} dvsel {words}\n\n{about.strip()}\n"
    if examples:
        yield f"```\n{inspect.cleandoc(examples)}\n```\n"
    yield from _tables(parameters(body))


def _tables(options: Parameters) -> Iterator[str]:
    """A table for each panel of the help."""
    panels: dict[str, list[str]] = {}
    for one in options.values():
        panels.setdefault(one.default.rich_help_panel or "", []).append(_row(one))
    for panel, rows in panels.items():
        title = [f"{panel}:\n"] if panel else []
        yield "\n".join([*title, "| option | takes | what it is |", "|---|---|---|", *rows, ""])


def _row(parameter: inspect.Parameter) -> str:
    cells = [", ".join(f"`{name}`" for name in _names(parameter)), _type(parameter.annotation)]
    env = f" (environment: `{one}`)" if (one := parameter.default.envvar) else ""
    cells.append(parameter.default.help + env + _default(parameter.default))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _names(parameter: inspect.Parameter) -> typing.Sequence[str]:
    option = parameter.default
    if isinstance(option, typer.models.OptionInfo):
        names = list(option.param_decls or ()) or [f"--{parameter.name.replace('_', '-')}"]
        return [names[0], *(name for name in names[1:] if not name.startswith("--"))]  # without other spellings
    return [option.metavar or parameter.name.upper()]


def _default(option: Any) -> str:
    if not option.show_default or option.default in (None, "", False, ...):
        return ""
    return f" (default: `{'on' if option.default is True else option.default}`)"


def _type(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        return f"{_type(typing.get_args(hint)[0])}, several"
    kinds = [kind for kind in typing.get_args(hint) or [hint] if kind is not type(None)]
    names = {str: "text", int: "whole number", float: "number", bool: "", Path: "path"}
    return " or ".join(names[kind] for kind in kinds)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
