"""What a person sees while a run goes on and when it is done: progress and the summary, on stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dvsel import scopes
from dvsel.engines import local
from dvsel.options import option
from dvsel.redact import printable
from dvsel.runs import Execution

_SECONDS_BETWEEN_LINES = 60


@dataclass(frozen=True)
class Terminal(Execution):
    """How a run is carried out, and how much it says."""

    quiet: bool = option(False, "no progress and no summary", env="DVSEL_QUIET")
    json: bool = option(False, "the summary as JSON on stdout", scope=scopes.prints)
    debug: bool = option(False, "show a traceback with an error")


class Report(Protocol):
    """A dataclass that can say itself in lines."""

    def lines(self) -> list[str]:
        """The summary, a line each."""


@contextlib.contextmanager
def executing(values: Mapping[str, Any], pool: Sequence[str] = ()) -> Iterator[Execution]:
    """The execution that the flags ask for, with progress where it can be seen.

    pool: what is to be read; workers begin to start at once where it is large, beside this process's own imports.
    """
    execution = Execution(**{name: values[name] for name in ("workers", "overwrite", "dry_run") if name in values})
    if pool and not execution.dry_run:
        from dvsel.sources import expand_pool

        local.prepare(execution.processes(sum(shard.size for shard in expand_pool(pool))))
    if values["quiet"]:
        yield execution
    elif sys.stderr.isatty():
        with _bars() as show:
            yield dataclasses.replace(execution, progress=show)
    else:
        yield dataclasses.replace(execution, progress=_Lines())


def print_report(report: Report, values: Mapping[str, Any]) -> None:
    """The summary of a finished run."""
    if values["json"]:
        print(json.dumps(dataclasses.asdict(report)))  # type: ignore[call-overload]
    if not values["quiet"]:
        for line in report.lines():
            print(printable(line), file=sys.stderr)


@contextlib.contextmanager
def _bars() -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        stages: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = progress.add_task(stage, total=total)
            progress.update(stages[stage], completed=done, total=total)

        yield show


class _Lines:
    """A line a minute, for logs."""

    def __init__(self) -> None:
        self._started = self._said = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            rate = done / (now - self._started)
            left = (total - done) / rate / 60 if rate else 0
            share = done / total if total else 1
            print(
                f"{stage}: {share:.0%} of {total / 1e9:.2f} GB, {rate / 1e6:.0f} MB/s, {left:.0f} min left",
                file=sys.stderr,
            )
