"""Write docs/cli-reference.md from the commands themselves: what `--help` shows, as Markdown.

    python docs/generate.py

An option that several commands share stands once, among the options of its kind (`_SHARED`); each command names it and
links there. Only dvsel's own scorers and selectors are shown, whatever other packages are installed. A test fails
while the page is not what this makes.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from dvsel.cli import flags
from dvsel.cli.app import build
from dvsel.cli.command_table import COMMANDS
from dvsel.cli.show import Terminal
from dvsel.embeddings import EmbedderOptions
from dvsel.fasttext.examples import Training
from dvsel.gradients import options as gradients
from dvsel.interface.registry import SCORERS, SELECTORS, registered
from dvsel.language import ModelOptions, PromptOptions
from dvsel.options import fields_of
from dvsel.runs.requests import (
    Counting,
    Execution,
    Fitting,
    Reading,
    Sampling,
    ScoreRun,
    Scoring,
    StreamOptions,
    Targeting,
)

PAGE = Path(__file__).parent / "cli-reference.md"
_INTRODUCTION = """# Command line

Made from the commands by `docs/generate.py`; `dvsel COMMAND --help-all` says the same, and `--help` what matters most.
[command-line.md](command-line.md) says what holds for all of them. Options that have a value by
themselves show it as the default.

- Exit codes: 0 done, 1 failed (one line on stderr says where, why and what to do), 2 wrong usage, 130 interrupted.
- stdout carries data only (documents, or JSON with `--json`); progress and summaries go to stderr.
- `dvsel --debug COMMAND ...` shows a traceback with an error.
- A command has the options of its own table, and those that it names with a link to where they are explained.
"""
_SHARED: dict[str, tuple[type, ...]] = {
    "Reading documents": (Reading, Targeting),
    "Fitting": (Fitting, Sampling),
    "Scoring": (ScoreRun, Scoring, StreamOptions),
    "Counting tokens": (Counting,),
    "Execution": (Execution, Terminal),
    "Language models": (ModelOptions, PromptOptions),
    "Gradients": (gradients.GradientOptions, gradients.CheckpointOptions),
    "Curvature": (gradients.SampleOptions, gradients.CurvatureOptions),
    "Directions of a target": (gradients.GroupOptions, gradients.TargetOptions, gradients.DirectedOptions),
    "Encoders": (EmbedderOptions,),
    "Training a classifier": (Training,),
}

Parameters = Mapping[str, inspect.Parameter]


@dataclasses.dataclass(frozen=True)
class Row:
    """An option's row in a table. panel: of the help. name: as the option is written; without its short form."""

    text: str
    name: str
    panel: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with a command's options. as_in: sections that explain some of them."""

    title: str
    level: str = "###"
    about: str = ""
    rows: Sequence[Row] = ()
    as_in: Sequence[Section] = ()

    def page(self, shared: Mapping[Row, str]) -> str:
        """The section as Markdown. shared: the title where a row stands that several sections have."""
        places = {**shared, **{row: one.title for one in self.as_in for row in one.rows}}
        own = [row for row in self.rows if row not in places]
        elsewhere: dict[str, list[str]] = {}
        for row in self.rows:
            if row in places:
                elsewhere.setdefault(places[row], []).append(f"`{row.name}`")
        links = [f"- {', '.join(names)}: {_link(title)}" for title, names in elsewhere.items()]
        parts = [f"{self.level} {self.title}", self.about, *_tables(own), "\n".join(links)]
        return "\n\n".join(part for part in parts if part) + "\n"


def reference() -> str:
    """The whole page."""
    sections = list(_sections())
    uses = Counter(row for one in sections if not one.as_in for row in set(one.rows))
    shared: dict[Row, str] = {}
    groups = []
    for title, classes in _SHARED.items():
        rows = [row for row in _rows_of(classes) if uses[row] > 1 and row not in shared]
        shared |= dict.fromkeys(rows, title)
        groups.append(Section(title, rows=rows).page({}))
    return "\n".join([_INTRODUCTION, *(one.page(shared) for one in sections), "## Shared options\n", *groups])


def _sections() -> Iterator[Section]:
    scorers: dict[str, Section] = {}
    for name in COMMANDS:
        if name in ("score", "fit"):
            yield from _of_scorers(name, scorers)
        else:
            yield _section(name, "##")
        if name == "select":
            yield from _choices(name, scorers)


def _of_scorers(name: str, scorers: dict[str, Section]) -> Iterator[Section]:
    """What all scorers take, and each scorer's section; those that come first are put into `scorers`."""
    sections = {scorer: _section(f"{name} {scorer}") for scorer in own(SCORERS)}
    first, *others = sections.values()
    every = [row for row in first.rows if all(row in other.rows for other in others)]
    head = Section(f"dvsel {name} NAME", "##", f"{COMMANDS[name].about} Every scorer takes:", every)
    yield head
    for scorer, section in sections.items():
        rows = [row for row in section.rows if row not in every]
        about = f"{section.about}\n\nBesides the options of {_link(head.title)}:"
        as_in = [scorers[scorer]] if scorer in scorers else []
        one = dataclasses.replace(section, about=about, rows=rows, as_in=as_in)
        yield scorers.setdefault(scorer, one) if not as_in else one


def _choices(name: str, scorers: Mapping[str, Section]) -> Iterator[Section]:
    """The options that a selector or a scorer adds to a command."""
    plain = set(_rows(name))
    rules: list[Section] = []
    for flag, group in (("--method", SELECTORS), ("--with", SCORERS)):
        for choice in own(group):
            rows = [row for row in _rows(f"{name} {flag} {choice}") if row not in plain]
            as_in = [scorers[choice], *rules] if group == SCORERS else []
            about = "" if rows else "No further options."
            one = Section(f"dvsel {name} {flag} {choice}", about=about, rows=rows, as_in=as_in)
            rules += [one] if group == SELECTORS else []
            yield one


def _section(words: str, level: str = "###") -> Section:
    about, _, examples = inspect.cleandoc(command(words).__doc__ or "").partition("\b")
    shown = f"\n\n```\n{inspect.cleandoc(examples)}\n```" if examples else ""
    return Section(f"dvsel {words}", level, about.strip() + shown, _rows(words))


def _rows(words: str) -> list[Row]:
    return [_row(one) for one in parameters(command(words)).values()]


def _rows_of(classes: Iterable[type]) -> Iterator[Row]:
    """The rows of the options that these classes add to those of their bases."""
    for cls in classes:
        skip = [name for name in fields_of(cls) if name not in inspect.get_annotations(cls)]
        body = flags.command(lambda *_: None, [flags.Group("", cls, skip=skip, show_pool=True)], "", "")
        yield from (_row(one) for name, one in parameters(body).items() if name != "arguments")


def _link(title: str) -> str:
    """A link to a heading of this page, by the name that GitHub gives it."""
    return f"[{title}](#{re.sub(r'[^a-z0-9 -]', '', title.lower()).replace(' ', '-')})"


def own(group: str) -> list[str]:
    """The names in an entry point group that dvsel itself provides."""
    return [name for name, point in registered(group).items() if point.value.startswith("dvsel.")]


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


def _tables(rows: Iterable[Row]) -> Iterator[str]:
    """A table for each panel of the help."""
    panels: dict[str, list[str]] = {}
    for row in rows:
        panels.setdefault(row.panel, []).append(row.text)
    for panel, texts in panels.items():
        title = [f"{panel}:\n"] if panel else []
        yield "\n".join([*title, "| option | takes | what it is |", "|---|---|---|", *texts])


def _row(parameter: inspect.Parameter) -> Row:
    names = _names(parameter)
    cells = [", ".join(f"`{name}`" for name in names), _type(parameter.annotation)]
    env = f" (environment: `{one}`)" if (one := parameter.default.envvar) else ""
    cells.append(parameter.default.help + env + _default(parameter.default))
    text = f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    return Row(text, names[0], parameter.default.rich_help_panel or "")


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
