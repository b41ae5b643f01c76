"""`dvsel demo`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from dvsel.cli.errors import guarded
from dvsel.redact import printable


def register(app: typer.Typer, rest: Sequence[str]) -> None:  # noqa: ARG001
    """Add `demo` to the app."""
    app.command("demo")(guarded(show))


def show(
    output: Path = typer.Option(Path("dvsel-demo"), "--output", "-o", help="folder to work in"),
    budget: str = typer.Option("10%", help="how much to keep"),
) -> None:
    """Score and select a small pool made from this Python installation: no arguments, no network, no files.

    \b
      dvsel demo
      dvsel demo --budget '200k tokens' -o /tmp/demo
    """
    from dvsel.cli.tables import plain_console, show_selection
    from dvsel.demo import build
    from dvsel.report import SelectReport
    from dvsel.runs import Execution, SelectRun
    from dvsel.scorers.dsir import DSIR
    from dvsel.select import select
    from dvsel.selectors.resample import Resample

    console = plain_console()
    shards, target = build(output)
    console.print(
        f"a pool of {len(shards)} shards in {output / 'pool'}, and a target: documentation of the Python language\n"
    )
    pool = tuple(str(shard) for shard in shards)
    console.print(
        f"$ dvsel select {output}/pool/*.jsonl.zst --with dsir --target {target} --normalise length --temperature 0.1 "
        f"--budget {budget} -o {output}/selected"
    )
    run = SelectRun(
        scorer=DSIR(normalise="length"),
        selector=Resample(temperature=0.1),
        pool=pool,
        target=(str(target),),
        budget=budget,
        output=str(output / "selected"),
    )
    report = select(run, Execution(overwrite=True))
    assert isinstance(report, SelectReport), "no dry run"
    for line in report.lines():
        console.print(printable(line), soft_wrap=True)
    show_selection(console, report)
    console.print(f"The subset is in {output}/selected. Next: dvsel inspect {output}/selected")
