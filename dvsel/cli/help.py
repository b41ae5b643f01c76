"""Help as plain text: a short one of the options that matter most, a long one of all, and a hint where an option
belongs to another command. Names are never cut or broken, whatever the width.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from dvsel.errors import UserError
from dvsel.interface.registry import SCORERS, SELECTORS, registered, scorer_class, selector_class
from dvsel.options import fields_of, flag_of, nearest

OWN_GROUPS = ("no model", "classifier", "embeddings", "language model", "gradients")
_MOST_OWNERS = 3
_ALL = "dvsel.help_all"


def show_all(context: typer.Context, asked: bool) -> None:
    """Print the help with all options, and exit."""
    if asked:
        context.meta[_ALL] = True
        print(context.get_help())
        raise typer.Exit()


class Command(TyperCommand):
    """A command whose `--help` shows some of its options.

    often: the parameters shown, by name; None for all. aliases: other spellings of options, which no help shows.
    """

    often: ClassVar[frozenset[str] | None] = None
    aliases: ClassVar[frozenset[str]] = frozenset()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as Typer does; for an unknown option, say which command has it."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if type(error).__name__ == "NoSuchOption":  # of the Click that Typer carries, or of Click's own
                error.message, error.possibilities = self._not_here(ctx, error.option_name), None  # type: ignore[attr-defined]
            raise

    def _not_here(self, ctx: Any, flag: str) -> str:
        command = ctx.command_path.removeprefix(f"{ctx.find_root().info_name} ")
        if owners := list(owners_of(flag, command)):
            more = f" and {len(owners) - _MOST_OWNERS} more" if len(owners) > _MOST_OWNERS else ""
            remedy = "add that, or drop it" if owners[0].startswith("--") else "drop it"
            return f"{flag} belongs to {', '.join(owners[:_MOST_OWNERS])}{more}; {remedy}"
        known = [name for one in self.params for name in (*one.opts, *one.secondary_opts) if name.startswith("--")]
        hint = nearest(flag, known)
        return f"no option {flag}; {hint if hint.startswith('did') else f'`dvsel {command} --help-all` shows all'}"

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options by section, and how many are not shown."""
        shown: dict[str, list[tuple[str, str]]] = {}
        more = 0
        for one in self.get_params(ctx):
            if not one.opts[0].startswith("-"):
                if about := getattr(one, "help", None):
                    shown.setdefault("Arguments", []).append((one.metavar or one.name.upper(), about))
            elif self.often is None or ctx.meta.get(_ALL) or one.name in self.often or _is_help(one):
                shown.setdefault(_section(one), []).append(self._record(ctx, one))
            else:
                more += 1
        for section, rows in sorted(shown.items(), key=lambda one: one[0] == "Help"):
            with formatter.section(section):
                formatter.write_dl(rows)
        if more:
            formatter.write_paragraph()
            formatter.write_text(f"{more} more options: {ctx.command_path} --help-all")

    def _record(self, ctx: Any, one: Any) -> tuple[str, str]:
        names, about = one.get_help_record(ctx) or ("", "")
        for alias in self.aliases.intersection((*one.opts, *one.secondary_opts)):
            names = names.replace(f", {alias}", "").replace(f" / {alias}", "")
        return names, about


def _is_help(one: Any) -> bool:
    return one.name in ("help", "help_all")


def _section(one: Any) -> str:
    return "Help" if _is_help(one) else getattr(one, "rich_help_panel", None) or "Options"


class Commands(TyperGroup):
    """A command of commands, each with its summary in full."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the commands by section."""
        for section, names in self.sections().items():
            rows = [(name, summary_of_help(self.commands[name])) for name in names]
            with formatter.section(section):
                formatter.write_dl(rows)

    def sections(self) -> Mapping[str, list[str]]:
        """Return the names of the commands, by section."""
        return {"Commands": list(self.commands)}


class Methods(Commands):
    """A command with one sub-command a scorer, grouped by what scorers need."""

    def sections(self) -> Mapping[str, list[str]]:
        """Return the scorers by group; each other package has one of its own."""
        groups: dict[str, list[str]] = {group: [] for group in OWN_GROUPS}
        for name, point in registered(SCORERS).items():
            groups.setdefault(about(point)[1] or _package(point), []).append(name)
        return {group[:1].upper() + group[1:]: names for group, names in groups.items() if names}


def summary_of_help(command: Any) -> str:
    """Return the first paragraph of a command's help, in one line."""
    return " ".join((command.help or "").split("\n\n")[0].split())


def about(point: EntryPoint) -> tuple[str, str]:
    """Return a scorer's group and the first line of its docstring, from its source: imports would take seconds.

    A class that is not defined where the entry point says is imported all the same.
    """
    module, _, name = point.value.partition(":")
    try:
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_bytes())
        node = next(one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == name)
        return (ast.get_docstring(node) or "").partition("\n")[0], _group(node)
    except Exception:  # a broken package must not hide the others
        return _imported(point)


def _group(node: ast.ClassDef) -> str:
    for one in node.body:
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and one.target.id == "group":
            return str(ast.literal_eval(one.value)) if one.value else ""
    return ""


def _imported(point: EntryPoint) -> tuple[str, str]:
    try:
        cls = point.load()
    except Exception as error:  # as above
        return f"cannot be loaded: {error}", ""
    return (cls.__doc__ or "").strip().partition("\n")[0], str(getattr(cls, "group", ""))


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "other packages"


def owners_of(flag: str, command: str) -> Iterator[str]:
    """Yield the places that have this option: as words to add to `command`, or as another command."""
    selects = command == "select"
    for group, load, option in ((SELECTORS, selector_class, "--method"), (SCORERS, scorer_class, "--with")):
        for name in registered(group):
            if flag in _flags(load, name):
                yield f"{option} {name}" if selects else f"`dvsel {_of(group, command)} {name}`"
    from dvsel.runs.requests import FitRun, ScoreRun, SelectRun, StreamOptions

    runs = {"fit": (FitRun,), "score": (ScoreRun, StreamOptions), "select": (SelectRun,)}
    for name, classes in runs.items():
        if any(flag == f"--{flag_of(field)}" for cls in classes for field, _ in _shown(cls)):
            yield f"`dvsel {name}`"


def _of(group: str, command: str) -> str:
    return "select --method" if group == SELECTORS else "fit" if command.startswith("fit") else "score"


def _flags(load: Any, name: str) -> set[str]:
    try:
        return {f"--{flag_of(field)}" for field, _ in _shown(load(name))}
    except UserError:
        return set()


def _shown(cls: type) -> Iterable[tuple[Any, Any]]:
    return [one for one in fields_of(cls).values() if "help" in one[0].metadata]
