"""`dvsel trace QUERY POOL`: the documents that each query's loss depends on most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from dvsel.cli.config import Defaults
from dvsel.cli.flags import Group, Values, add, command
from dvsel.errors import UserError
from dvsel.interface.registry import scorer_class

if TYPE_CHECKING:
    from dvsel.cli.run import Recipe

_HELP = """Find the documents of a pool that lower the loss on each query most, and by which of their tokens.

\b
  dvsel trace queries.jsonl pool/*.jsonl.zst --model models/pythia-160m -o traced/
  dvsel trace queries.jsonl pool/ --model models/pythia-160m --preconditioner ekfac --top 50 -o traced/
  jq -c '[.query, .rank, .score, .text[:80]]' traced/traced.jsonl
"""


_EACH: dict[str, Any] = {"separate_targets": True}


def register(app: typer.Typer, rest: Sequence[str]) -> None:  # noqa: ARG001
    """Add `trace` to the app."""
    add(app, "trace", build())


def build(defaults: Mapping[str, Any] | None = None, method: Mapping[str, Any] | None = None) -> Any:
    """Build the command. defaults, method: other defaults for the run and for the scorer's options."""
    from dvsel.cli.show import Terminal
    from dvsel.commands.trace import TraceRun

    cls, defaults = scorer_class("influence"), defaults or {}

    def body(arguments: list[str], values: dict[str, Values]) -> None:
        from dvsel.cli.show import executing, print_report
        from dvsel.commands.trace import trace

        named = values["Run"]["query"] or defaults.get("query", ())
        queries, pool = (named, arguments) if named else (arguments[:1], arguments[1:])
        scorer = values["Method"].make(cls, **_EACH)
        pool = pool or list(defaults.get("pool", ()))
        run = values["Run"].make(TraceRun, scorer=scorer, query=tuple(queries), pool=tuple(pool))
        terminal = values["Execution"].read_in(Terminal, run)
        if not run.pool:
            raise UserError("nothing to trace in; name the queries first, then the pool's shards")
        if not (run.output or terminal["dry_run"]):
            raise UserError("score files need a folder; name one with -o traced/")
        with executing(terminal) as execution:
            report = trace(run, execution)
        print_report(report, terminal)

    method = {name: value for name, value in (method or {}).items() if name not in ("name", "separate_targets")}
    groups = [
        Group("Method", cls, method, skip=("separate_targets",), prefix="influence", chosen=True),
        Group("Run", TraceRun, defaults),
        Group("Execution", Terminal, prefix="run"),
    ]
    argument = "the queries' file, then the pool: shards, folders, globs, URLs"
    return command(body, groups, _HELP, argument, "QUERY POOL", Defaults.of("trace"))


def replay(recipe: Recipe) -> Any:
    """Build the command with a recipe's values as defaults."""
    return build(recipe.values, recipe.part("scorer"))
