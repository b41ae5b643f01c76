"""`dvsel score NAME POOL`: one sub-command a scorer, made from its options."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from dvsel.cli.config import Defaults
from dvsel.cli.flags import FITTED, Group, Values, command, sub_commands, ways_of
from dvsel.errors import UserError
from dvsel.interface.registry import SCORERS, scorer_class

if TYPE_CHECKING:
    from dvsel.cli.run import Recipe

_HELP = """{doc}

\b
{examples}
  dvsel score {name} pool/ --fitted {name}.fitted -o scores/
  zstdcat a.jsonl.zst | dvsel score {name} --fitted {name}.fitted - | jq .{field}
"""


def register(app: typer.Typer, rest: Sequence[str]) -> None:
    """Add `score` to the app, with the scorer that `rest` names."""
    sub_commands(app, "score", SCORERS, rest, build)


def build(name: str, defaults: Mapping[str, Any] | None = None, method: Mapping[str, Any] | None = None) -> Any:
    """Build the command for one scorer. defaults, method: other defaults for the run and for the scorer's options."""
    from dvsel.cli.show import Terminal
    from dvsel.runs.requests import ScoreRun, StreamOptions

    cls = scorer_class(name)
    defaults = defaults or {}

    def body(pool: list[str], values: dict[str, Values]) -> None:
        pool = pool or list(defaults.get("pool", ()))
        if values["Run"]["fitted"]:
            values["Method"].refuse(cls, FITTED)
        scorer = None if values["Run"]["fitted"] else values["Method"].make(cls)
        run = values["Run"].make(ScoreRun, scorer=scorer, pool=tuple(pool))
        stream, terminal = values["Stream"].make(StreamOptions, run), values["Execution"].read_in(Terminal, run)
        if pool == ["-"]:
            from dvsel.commands.stream import score_stream

            if run.output not in ("", "-"):
                raise UserError(f"-o {run.output}: what comes from stdin goes to stdout; drop -o, or name shards")
            score_stream(name, run, stream, sys.stdin.buffer, sys.stdout.buffer, terminal["quiet"])
            return
        if not pool:
            raise UserError("nothing to score; name shards or folders, or - for lines from stdin")
        if run.output in ("", "-") and not terminal["dry_run"]:
            raise UserError("score files need a folder; name one with -o scores/, or pipe lines through stdin")
        from dvsel.cli.show import executing, print_report

        with executing(terminal, () if cls.uses_all_cores else pool) as execution:
            from dvsel.commands.score import score
            from dvsel.runs import fitted_files

            if run.scoring.fitted:
                fitted_files.load_of(name, run.scoring.fitted)
            report = score(run, execution)
        print_report(report, terminal)

    groups = [
        Group("Method", cls, method or {}, prefix=name, chosen=True),
        Group("Run", ScoreRun, defaults),
        Group("Stream", StreamOptions, prefix="stream"),
        Group("Execution", Terminal, prefix="run"),
    ]
    ways = (way.removeprefix("--pool pool/").split() for way in ways_of(cls))
    examples = (" ".join(["  dvsel score", name, "pool/*.jsonl.zst", *way, "-o scores/"]) for way in ways)
    doc = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
    return command(
        body,
        groups,
        _HELP.format(doc=doc, name=name, field=f"dvsel_{name.replace('-', '_')}", examples="\n".join(examples)),
        "shards, folders, globs, URLs; - for stdin",
        defaults=Defaults.of("score", [name]),
    )


def replay(recipe: Recipe) -> Any:
    """Build the command with a recipe's values as defaults."""
    name, options = recipe.scorer()
    return build(name, recipe.values, options)
