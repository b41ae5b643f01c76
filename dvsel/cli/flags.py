"""Commands made from options dataclasses: a field becomes a flag, its metadata the help.

Every flag is honoured or refused (`Values.make`): given on the command line and read by nothing, it is an error;
a default of the environment, the configuration file or a recipe that nothing reads is left aside.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import typer

from dvsel.cli.command_table import COMMANDS
from dvsel.cli.config import Defaults
from dvsel.cli.errors import with_exit_codes
from dvsel.cli.help import Command, Methods, about, show_all
from dvsel.errors import UserError
from dvsel.interface.registry import SCORERS, SELECTORS, registered
from dvsel.interface.scorer import Scorer
from dvsel.options import base_type, build, draft, fields_of, flag_of, help_of, unread

Run = TypeVar("Run")

_OFTEN = {  # options that most users set
    *("pool", "target", "budget", "fitted", "output", "ladder", "method", "with_", "seed", "dry_run", "workers"),
    *("model", "label", "probability", "preprocess", "positive", "negative", "query", "top", "min_score", "quota"),
}
_OF_A_METHOD = 4  # options of a method that the short help shows at least
_LATER = {"seed", "dry_run", "workers"}  # of these, those that are not moved to the front of their class
_SHORT = {"output": "-o", "workers": "-w", "method": "-m"}
_NAMED = {"method": SELECTORS, "with_": SCORERS}  # options whose value is the name of a method
_SPELLINGS = (("normalise", "normalize"), ("neighbour", "neighbor"), ("optimiser", "optimizer"), ("centre", "center"))


@dataclasses.dataclass(frozen=True)
class Group:
    """Options that are shown together.

    prefix: of a flag whose name another group has too. chosen: True for the options of a method, of which the short
    help shows some.
    """

    name: str
    options: type
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    skip: Sequence[str] = ()
    prefix: str = ""
    show_pool: bool = False
    chosen: bool = False


class Values(dict[str, Any]):
    """Values of the options of a group, by name. given: names of those that the command line gave."""

    def __init__(self) -> None:
        self.given: set[str] = set()

    def take(self, other: Values) -> None:
        """Add the values of another group."""
        self.update(other)
        self.given |= other.given

    def read_in(self, cls: type, run: Any = None, **parts: Any) -> dict[str, Any]:
        """Return the values that are read, and `parts`; the others are at their defaults.

        run: the object whose scopes decide; None for the options themselves. Raises UserError for one
        that the command line gave and that nothing reads.
        """
        values = given(self) | parts
        while aside := unread(draft(cls, values), run, values.keys() - parts.keys()):
            for name in sorted(self.given & aside.keys()):
                raise UserError(f"--{flag_of(fields_of(cls)[name][0])}: {aside[name]}")
            values = {name: value for name, value in values.items() if name not in aside}
        return {name: field.default for name, (field, _) in fields_of(cls).items()} | values

    def make(self, cls: type[Run], run: Any = None, **parts: Any) -> Run:
        """Build the options from what `read_in` returns."""
        return build(cls, self.read_in(cls, run, **parts))

    def refuse(self, cls: type, why: str) -> None:
        """Raise UserError if the command line gave any of them."""
        for name in sorted(self.given):
            raise UserError(f"--{flag_of(fields_of(cls)[name][0])}: {why}")


def command(
    body: Callable[[list[str], dict[str, Values]], None],
    groups: Sequence[Group],
    help: str,
    argument: str,
    metavar: str = "POOL",
    defaults: Defaults | None = None,
) -> Callable[..., None]:
    """Return a function for `add` whose flags are the options of all groups.

    It calls body(arguments, values), values holding the options by group name. argument, metavar: the help and the
    name of the positional arguments. defaults: of the user's configuration.
    """
    defaults = defaults or Defaults()
    parameters = {
        "context": inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        "arguments": _parameter_of(
            "arguments", list[str], typer.Argument(None, metavar=metavar, help=argument, show_default=False)
        ),
    }
    owners: dict[str, tuple[str, str]] = {}
    often: set[str] = set()
    for group in groups:
        for name, (field, hint) in _sorted_options(group):
            flag = field.metadata.get("flag") or name
            flag = flag if flag not in parameters else f"{group.prefix}_{name}"
            owners[flag] = (group.name, name)
            configured = defaults.take(flag.rstrip("_"), hint, field.metadata.get("choices"))
            default = group.defaults.get(name, field.default if configured is None else configured)
            parameters[flag] = _parameter(flag, field, hint, default, group.name)
        often |= {flag for flag, (owner, name) in owners.items() if owner == group.name and name in _often_of(group)}
    defaults.check_all_taken()
    parameters["help_all"] = _parameter_of(
        "help_all",
        bool,
        typer.Option(False, "--help-all", callback=show_all, is_eager=True, help="show all options"),
    )

    def run(**flags: Any) -> None:
        values = {group.name: Values() for group in groups}
        for flag, (group, name) in owners.items():
            value = flags[flag]
            values[group][name] = tuple(value) if isinstance(value, list) else value
            source = flags["context"].get_parameter_source(flag)
            if source is not None and source.name == "COMMANDLINE":
                values[group].given.add(name)
        body(flags["arguments"] or [], values)

    made: Any = with_exit_codes(run)
    made.__signature__ = inspect.Signature(list(parameters.values()))
    made.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    made.__doc__ = help
    made.often = frozenset(often)
    del made.__wrapped__
    finished: Callable[..., None] = made
    return finished


def add(app: typer.Typer, name: str, made: Any, cls: type[Command] = Command, help: str | None = None) -> None:
    """Add a function that `command` made to an app."""
    aliases = frozenset(alias for one in made.__annotations__ for alias in _aliases(_long(one)))
    app.command(name, help=help, cls=type("Command", (cls,), {"often": made.often, "aliases": aliases}))(made)


def _sorted_options(group: Group) -> list[tuple[str, tuple[dataclasses.Field[Any], Any]]]:
    """Return the options of a group that are flags, first those that most users set."""
    shown = [
        (name, one)
        for name, one in fields_of(group.options).items()
        if name not in group.skip and "help" in one[0].metadata and (name != "pool" or group.show_pool)
    ]
    return sorted(shown, key=lambda one: one[0] not in _OFTEN - _LATER)


def _often_of(group: Group) -> set[str]:
    """Return the options of a group that the short help shows."""
    names = [name for name, _ in _sorted_options(group)]
    if not group.chosen:
        return _OFTEN.intersection(names)
    own = [name for name in names if name in _OFTEN or name in inspect.get_annotations(group.options)]
    return {*_OFTEN.intersection(names), *(own or names)[:_OF_A_METHOD]}


class GreedyMultiFlagCommand(Command):
    """A command that gives all of `--flag a b c`, which is what a shell makes of `--flag *`, to a repeatable flag."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse `--flag a b c` as `--flag a --flag b --flag c`."""
        repeatable = {name for one in self.params if getattr(one, "multiple", False) for name in one.opts}
        words: list[str] = []
        flag, values = "", 0
        for word in args:
            flag, values = (word, 0) if word.startswith("-") else (flag, values + 1)
            words += [flag, word] if flag in repeatable and values > 1 else [word]
        return super().parse_args(ctx, words)


def _parameter(flag: str, field: dataclasses.Field[Any], hint: Any, default: Any, panel: str) -> inspect.Parameter:
    long = _long(flag)
    choices = field.metadata.get("choices")
    wanted = base_type(hint)
    annotation: Any = Literal[tuple(choices)] if choices else hint
    if typing.get_origin(wanted) is tuple:
        annotation, default = list[typing.get_args(wanted)[0]], list(default) or None  # type: ignore[misc]
    names = [f"{one}/--no-{one[2:]}" if wanted is bool and default else one for one in (long, *_aliases(long))]
    names += [_SHORT[flag]] if flag in _SHORT else []
    option = typer.Option(
        None if default == "" else default,
        *names,
        metavar=_metavar(field, wanted),
        help=help_of(field),
        show_default=default is not None and default is not False and default != "",
        rich_help_panel=panel,
        envvar=field.metadata.get("env") or None,
        autocompletion=_names_in(_NAMED[flag]) if flag in _NAMED else None,
    )
    return _parameter_of(flag, annotation | None if default in ("", None) and annotation is str else annotation, option)


def _metavar(field: dataclasses.Field[Any], wanted: Any) -> str | None:
    """Return the word for the value in the help; None for choices and switches, whose help shows their values."""
    if field.metadata.get("choices") or wanted is bool:
        return None
    element = typing.get_args(wanted)[0] if typing.get_origin(wanted) is tuple else wanted
    return "PATH" if field.metadata.get("files") else {int: "INTEGER", float: "NUMBER"}.get(element, "TEXT")


def _parameter_of(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _long(flag: str) -> str:
    return f"--{flag.rstrip('_').replace('_', '-')}"


def _aliases(long: str) -> list[str]:
    """Return the flag in the other spelling of English (normalise, normalize)."""
    pairs = [*_SPELLINGS, *((there, here) for here, there in _SPELLINGS)]
    return [long.replace(here, there) for here, there in pairs if here in long]


def _names_in(group: str) -> Callable[[str], list[str]]:
    return lambda incomplete: [name for name in registered(group) if name.startswith(incomplete)]


def sub_commands(
    app: typer.Typer,
    name: str,
    group: str,
    rest: Sequence[str],
    make: Callable[[str], Callable[..., None]],
    cls: type[Command] = Command,
) -> None:
    """Add a command with one sub-command for each name in an entry point group; `make` makes the one in `rest`."""
    parent = typer.Typer(cls=Methods, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
    app.add_typer(parent, name=name, help=COMMANDS[name].about)
    wanted = next((word for word in rest if not word.startswith("-")), None)
    for known, point in registered(group).items():
        if known == wanted:
            try:
                add(parent, known, make(known), cls)
            except UserError as error:
                parent.command(known, context_settings=ANY_FLAGS)(with_exit_codes(raising(error)))
        else:
            summary = about(point)[0] if wanted is None else ""
            parent.command(known, help=summary)(lambda: None)


FITTED = "is for a fit, and --fitted names one that is done; drop one of the two"
ANY_FLAGS = {"ignore_unknown_options": True, "allow_extra_args": True}


def ways_of(cls: type[Scorer]) -> list[str]:
    """Return what follows a scorer's name in the examples of its help; distilling too where it is costly."""
    costly = cls.usage[:1] if cls.uses_all_cores else ()
    return [*cls.usage, *(f"--pool pool/ {way.removeprefix('--pool pool/ ')} --distil" for way in costly)]


def raising(error: UserError) -> Callable[..., None]:
    """Return a command that takes any arguments and fails with this error."""

    def fail(arguments: list[str] = typer.Argument(None, hidden=True)) -> None:  # noqa: ARG001
        raise error

    return fail


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that have a value."""
    return {name: value for name, value in values.items() if value is not None}
