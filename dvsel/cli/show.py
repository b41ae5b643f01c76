"""The part of a run that a person sees, on stderr: progress while it goes on (`dvsel.stages`), and the summary."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dvsel import stages
from dvsel.engines import local
from dvsel.options import option
from dvsel.progress import showing
from dvsel.redact import printable
from dvsel.runs import scopes
from dvsel.runs.requests import Execution


@dataclass(frozen=True)
class Terminal(Execution):
    """Options of how a run is carried out and how much it prints."""

    quiet: bool = option(False, "no progress and no summary", env="DVSEL_QUIET")
    json: bool = option(False, "the summary as JSON on stdout", scope=scopes.prints)
    debug: bool = option(False, "show a traceback with an error")


class Report(Protocol):
    """A dataclass that has a text summary."""

    def lines(self) -> list[str]:
        """Return the summary, a string for each line."""


@contextlib.contextmanager
def executing(values: Mapping[str, Any], pool: Sequence[str] = ()) -> Iterator[Execution]:
    """Give the execution that the flags ask for, and show progress until the block ends.

    pool: files to be read; where they are large, workers start at once, beside this process's own imports.
    """
    execution = Execution(**{name: values[name] for name in ("workers", "overwrite", "dry_run") if name in values})
    if pool and not execution.dry_run:
        from dvsel.pool.sources import expand_pool

        local.prepare(execution.processes(sum(shard.size for shard in expand_pool(pool))))
    if values["quiet"]:
        yield execution
    else:
        with stages.bars() if sys.stderr.isatty() else stages.lines() as show, showing(show):
            yield execution


def print_report(report: Report, values: Mapping[str, Any]) -> None:
    """Print the summary of a finished run."""
    if values["json"]:
        print(json.dumps(dataclasses.asdict(report)))  # type: ignore[call-overload]
    if not values["quiet"]:
        from dvsel.runs.report import SelectReport

        for line in report.lines():
            print(printable(line), file=sys.stderr)
        if isinstance(report, SelectReport) and sys.stderr.isatty():
            from dvsel.cli.tables import plain_console, show_selection

            show_selection(plain_console(stderr=True), report)
