"""`dvsel demo`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dvsel.cli.errors import with_exit_codes
from dvsel.redact import printable

if TYPE_CHECKING:
    from dvsel.runs.report import SelectReport

_COMMAND = """$ dvsel select {output}/pool/*.jsonl.zst --with dsir --target {output}/target.jsonl \\
    --normalise length --temperature 0.3 --budget {budget} -o {output}/selected"""


def register(app: typer.Typer, rest: Sequence[str]) -> None:  # noqa: ARG001
    """Add `demo` to the app."""
    app.command("demo")(with_exit_codes(show))


def show(
    output: Path = typer.Option(Path("dvsel-demo"), "--output", "-o", help="folder to work in"),
    budget: str = typer.Option("10%", help="how much to keep"),
    as_json: bool = typer.Option(False, "--json", help="the summary as JSON, and nothing else, on stdout"),
    quiet: bool = typer.Option(False, "--quiet", help="no summary", envvar="DVSEL_QUIET"),
) -> None:
    """Score and select a small pool made from this Python installation: no arguments, no network, no files.

    \b
      dvsel demo
      dvsel demo --budget '200k tokens' -o /tmp/demo
    """
    from dvsel.commands.demo import build

    shards, target = build(output)
    talks, shown = not (quiet or as_json), printable(str(output))
    if talks:
        print(f"a pool of {len(shards)} shards in {shown}/pool, and a target: documentation of Python\n")
        print(_COMMAND.format(output=shown, budget=printable(budget)))
    report = _selected([str(shard) for shard in shards], str(target), budget, output)
    if as_json:
        print(json.dumps(dataclasses.asdict(report)))
    if talks:
        from dvsel.cli.tables import plain_console, show_selection

        for line in report.lines():
            print(printable(line))
        show_selection(plain_console(), report)
        print(f"The subset is in {shown}/selected. Next: dvsel inspect {shown}/selected")


def _selected(pool: Sequence[str], target: str, budget: str, output: Path) -> SelectReport:
    from dvsel.commands.select import select
    from dvsel.runs.report import SelectReport
    from dvsel.runs.requests import Execution, Fitting, SelectRun
    from dvsel.scorers.dsir import DSIR
    from dvsel.selectors.resample import Resample

    run = SelectRun(
        scorer=DSIR(normalise="length"),
        selector=Resample(temperature=0.3),
        pool=tuple(pool),
        fitting=Fitting(target=(target,)),
        budget=budget,
        output=str(output / "selected"),
    )
    report = select(run, Execution(overwrite=True))
    assert isinstance(report, SelectReport), "no dry run"
    return report
