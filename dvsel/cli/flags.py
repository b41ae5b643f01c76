"""Commands made from options dataclasses: a field becomes a flag, its metadata the help."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypeVar

import typer
from typer.core import TyperCommand

from dvsel.cli import COMMANDS
from dvsel.cli.errors import guarded
from dvsel.errors import UserError
from dvsel.options import base_type, fields_of
from dvsel.plugins import found
from dvsel.scorers import Scorer

Run = TypeVar("Run")

_FIRST = {  # what most users set
    *("pool", "target", "budget", "fitted", "output", "ladder"),
    *("model", "label", "probability", "preprocess", "positive", "negative"),
}
ANY_FLAGS = {"ignore_unknown_options": True, "allow_extra_args": True}
_SHORT = {"output": "-o", "workers": "-w", "method": "-m"}


@dataclasses.dataclass(frozen=True)
class Group:
    """Options that are shown together. prefix: told apart by it where another group has a flag of the same name."""

    name: str
    options: type
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    skip: Sequence[str] = ()
    prefix: str = ""
    show_pool: bool = False


def command(
    body: Callable[[list[str], dict[str, dict[str, Any]]], None],
    groups: Sequence[Group],
    help: str,
    argument: str,
    metavar: str = "POOL",
) -> Callable[..., None]:
    """A function for Typer whose flags are the options of all groups.

    It calls body(arguments, values), values holding the options by group name. argument, metavar: the help and the
    name of the positional arguments.
    """
    parameters: dict[str, inspect.Parameter] = {
        "arguments": inspect.Parameter(
            "arguments",
            inspect.Parameter.KEYWORD_ONLY,
            default=typer.Argument(None, metavar=metavar, help=argument, show_default=False),
            annotation=list[str],
        )
    }
    owners: dict[str, tuple[str, str]] = {}
    for group in groups:
        for name, (field, hint) in sorted(fields_of(group.options).items(), key=lambda one: one[0] not in _FIRST):
            if name in group.skip or "help" not in field.metadata or (name == "pool" and not group.show_pool):
                continue
            flag = field.metadata.get("flag") or name
            flag = flag if flag not in parameters else f"{group.prefix}_{name}"
            owners[flag] = (group.name, name)
            parameters[flag] = _parameter(flag, field, hint, group.defaults.get(name, field.default), group.name)

    def run(**flags: Any) -> None:
        values: dict[str, dict[str, Any]] = {group.name: {} for group in groups}
        for flag, (group, name) in owners.items():
            value = flags[flag]
            values[group][name] = tuple(value) if isinstance(value, list) else value
        body(flags["arguments"] or [], values)

    made = guarded(run)
    made.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    made.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    made.__doc__ = help
    del made.__wrapped__  # type: ignore[attr-defined]
    return made


class Spreading(TyperCommand):
    """A command that gives all of `--flag a b c`, which is what a shell makes of `--flag *`, to a repeatable flag."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read them as `--flag a --flag b --flag c`."""
        repeatable = {name for one in self.params if getattr(one, "multiple", False) for name in one.opts}
        words: list[str] = []
        flag, values = "", 0
        for word in args:
            flag, values = (word, 0) if word.startswith("-") else (flag, values + 1)
            words += [flag, word] if flag in repeatable and values > 1 else [word]
        return super().parse_args(ctx, words)


def _parameter(flag: str, field: dataclasses.Field[Any], hint: Any, default: Any, panel: str) -> inspect.Parameter:
    long = f"--{flag.rstrip('_').replace('_', '-')}"
    choices = field.metadata.get("choices")
    wanted = base_type(hint)
    annotation: Any = Literal[tuple(choices)] if choices else hint
    if typing.get_origin(wanted) is tuple:
        annotation, default = list[typing.get_args(wanted)[0]], list(default) or None  # type: ignore[misc]
    names = [f"{long}/--no-{long[2:]}" if wanted is bool and default else long]
    names += [_SHORT[flag]] if flag in _SHORT else []
    return inspect.Parameter(
        flag,
        inspect.Parameter.KEYWORD_ONLY,
        default=typer.Option(
            None if default == "" else default,
            *names,
            help=field.metadata["help"],
            show_default=default is not None and default is not False and default != "",
            rich_help_panel=panel,
        ),
        annotation=annotation | None if default in ("", None) and annotation is str else annotation,
    )


def sub_commands(
    app: typer.Typer,
    name: str,
    group: str,
    rest: Sequence[str],
    make: Callable[[str], Callable[..., None]],
    cls: type[TyperCommand] = TyperCommand,
) -> None:
    """Add a command with one sub-command for each name in an entry point group; `make` makes the one in `rest`."""
    parent = typer.Typer(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
    app.add_typer(parent, name=name, help=COMMANDS[name])
    wanted = next((word for word in rest if not word.startswith("-")), None)
    for known in found(group):
        if known == wanted:
            try:
                parent.command(known, cls=cls)(make(known))
            except UserError as error:
                parent.command(known, context_settings=ANY_FLAGS)(guarded(raising(error)))
        else:
            parent.command(known, help=f"`dvsel {name} {known} --help` shows its options.")(lambda: None)


def ways_of(cls: type[Scorer]) -> list[str]:
    """What follows a scorer's name in the examples of its help; where it is costly, how to distil it too."""
    costly = cls.usage[:1] if cls.parallel else ()
    return [*cls.usage, *(f"--pool pool/ {way.removeprefix('--pool pool/ ')} --distil" for way in costly)]


def raising(error: UserError) -> Callable[..., None]:
    """A command that takes any arguments and fails."""

    def fail(arguments: list[str] = typer.Argument(None, hidden=True)) -> None:  # noqa: ARG001
        raise error

    return fail


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that have a value."""
    return {name: value for name, value in values.items() if value is not None}


def refuse_with_fitted(group: Group, values: Mapping[str, Any], names: Collection[str] = ()) -> None:
    """Refuse options of a fit (these names, or all of the group) that were given beside a fitted scorer."""
    for name, (field, _) in fields_of(group.options).items():
        default = group.defaults.get(name, field.default)
        default = tuple(default) if isinstance(default, list) else default
        if name in (names or values) and values.get(name) not in (None, (), default):
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} is for a fit, and --fitted names one that is done; drop one of the two")


def refuse_on_shards(stream: Mapping[str, Any]) -> None:
    """Refuse options of a stream where shards are named."""
    for name in given(stream):
        raise UserError(f"--{name.replace('_', '-')} is for lines from stdin, and shards are named; drop it")


def run_of(cls: type[Run], values: Mapping[str, Any], pool: Sequence[str]) -> Run:
    """A run from its flags and the positional arguments."""
    values = given(values)
    return cls(**values | {"pool": (*values.get("pool", ()), *pool)})
