"""`dvsel fit NAME --pool POOL -o FILE`: one sub-command a scorer, made from its options."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from dvsel.cli.config import Defaults
from dvsel.cli.flags import GreedyMultiFlagCommand, Group, Values, command, sub_commands, ways_of
from dvsel.errors import UserError
from dvsel.interface.registry import SCORERS, scorer_class
from dvsel.redact import printable

if TYPE_CHECKING:
    from dvsel.cli.run import Recipe

_HELP = """Fit {name} once; score with it many times.

\b
{examples}
  dvsel score {name} pool/*.jsonl.zst --fitted {name}.fitted -o scores/
"""


def register(app: typer.Typer, rest: Sequence[str]) -> None:
    """Add `fit` to the app, with the scorer that `rest` names."""
    sub_commands(app, "fit", SCORERS, rest, build, GreedyMultiFlagCommand)


def build(name: str, defaults: Mapping[str, Any] | None = None, method: Mapping[str, Any] | None = None) -> Any:
    """Build the command for one scorer. defaults, method: other defaults for the run and for the scorer's options."""
    from dvsel.cli.show import Terminal
    from dvsel.runs.requests import FitRun

    cls = scorer_class(name)

    def body(pool: list[str], values: dict[str, Values]) -> None:
        from dvsel.cli.show import executing

        if pool:
            values["Run"]["pool"] = (*(values["Run"]["pool"] or ()), *pool)
            values["Run"].given.add("pool")
        run = values["Run"].make(FitRun, scorer=values["Method"].make(cls))
        terminal = values["Execution"].read_in(Terminal, run)
        if not run.output:
            raise UserError(f"nowhere to write to; name a file with -o {name}.fitted")
        with executing(terminal, run.pool) as execution:
            from dvsel.commands.fit import fit

            fitted = fit(run, execution)
        if terminal["json"]:
            print(json.dumps({"scorer": name, "output": run.output, "report": fitted.report}))
        if not terminal["quiet"]:
            for line in fitted.lines():
                print(printable(line), file=sys.stderr)
            wrote = f"wrote {run.output}; score with `dvsel score {name} POOL --fitted {run.output}`"
            print(printable(wrote), file=sys.stderr)

    groups = [
        Group("Method", cls, method or {}, prefix=name, chosen=True),
        Group("Run", FitRun, defaults or {}, show_pool=True),
        Group("Execution", Terminal, skip=("overwrite", "dry_run"), prefix="run"),
    ]
    examples = (" ".join(["  dvsel fit", name, *way.split(), f"-o {name}.fitted"]) for way in ways_of(cls))
    page, defaults_ = _HELP.format(name=name, examples="\n".join(examples)), Defaults.of("fit", [name])
    return command(body, groups, page, "more of the pool", defaults=defaults_)


def replay(recipe: Recipe) -> Any:
    """Build the command with a recipe's values as defaults."""
    name, options = recipe.scorer()
    return build(name, recipe.values, options)
