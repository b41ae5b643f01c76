"""`dvsel run FILE`: the command that a recipe names, with the recipe's values as defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from dvsel.cli.errors import guarded
from dvsel.cli.flags import ANY_FLAGS, add, raising
from dvsel.errors import UserError
from dvsel.options import refuse_unread

_HELP = """Replay a run from its recipe; further flags beat what it says.

\b
  dvsel run recipes/dsir.yaml
  dvsel run selected/recipe.yaml --budget 10B -o smaller/
"""


def register(app: typer.Typer, rest: Sequence[str]) -> None:
    """Add `run` to the app, as the command of the recipe that `rest` names."""
    file = _recipe(rest)
    if file is None:
        app.command("run", help=_HELP)(_placeholder)
        return
    try:
        add(app, "run", _made(file, [word for word in rest if word != file]), help=_HELP)
    except UserError as error:
        app.command("run", help=_HELP, context_settings=ANY_FLAGS)(guarded(raising(error)))


def _recipe(rest: Sequence[str]) -> str | None:
    """The recipe's file: the first word that ends like one, since flags with values may come before it."""
    words = [word for word in rest if not word.startswith("-")]
    return next((word for word in words if word.endswith((".yaml", ".yml"))), words[0] if words else None)


def _placeholder(file: str = typer.Argument(..., metavar="FILE", help="a recipe")) -> None:
    """Shown where no recipe is named."""


def _made(file: str, rest: Sequence[str]) -> Any:
    from dvsel.cli import embed, fit, losses, score, select, strength, trace
    from dvsel.commands.embed import EmbedRun
    from dvsel.commands.losses import LossesRun
    from dvsel.commands.strength import StrengthRun
    from dvsel.commands.trace import TraceRun
    from dvsel.runs.recipe import load, make
    from dvsel.runs.requests import FitRun, ScoreRun, SelectRun

    name, values = load(file)
    runs = {
        **{"fit": FitRun, "score": ScoreRun, "select": SelectRun},
        **{"embed": EmbedRun, "losses": LossesRun, "strength": StrengthRun, "trace": TraceRun},
    }
    if name not in runs:
        raise UserError(f"{file}: command is {name!r}; it is one of {', '.join(runs)}")
    try:
        refuse_unread(make(runs[name], values, file))
    except UserError as error:
        raise UserError(str(error) if file in str(error) else f"{file}: {error}") from error
    plain = {"embed": embed.make, "losses": losses.make, "strength": strength.make}
    if name in plain:
        return _without_file(plain[name](values), file)
    scorer, selector = _part(values, "scorer"), _part(values, "selector")
    if name == "select":
        return _without_file(select.make(rest, values, scorer, selector), file)
    if name == "trace":
        return _without_file(trace.make(values, scorer), file)
    method = scorer.pop("name", None) or _fitted_name(values, file)
    maker = {"fit": fit.make, "score": score.make}[name]
    return _without_file(maker(method, values, scorer), file)


def _part(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = values.get(name, {})
    return dict(part) if isinstance(part, dict) else {"name": part}


def _fitted_name(values: Mapping[str, Any], file: str) -> str:
    from dvsel.interface.registry import SCORERS, name_of
    from dvsel.runs import fitted_files

    if not values.get("fitted"):
        raise UserError(f"{file}: names no scorer; add `scorer: NAME`, or `fitted: FILE`")
    return name_of(SCORERS, type(fitted_files.load(values["fitted"])[0].scorer))


def _without_file(made: Any, file: str) -> Any:
    """`made`, for arguments of which the first is the recipe itself."""
    import functools

    @functools.wraps(made)
    def run(**flags: Any) -> None:
        flags["arguments"] = [word for word in flags["arguments"] or [] if word != file]
        made(**flags)

    run.__signature__ = made.__signature__  # type: ignore[attr-defined]
    return run
