"""Timing on a machine that others use too: runs alternate, CPU time stands beside wall time, ratios are of pairs.

A busy machine stretches wall time, hardly CPU time; runs that alternate are stretched alike. So a comparison is
made within each round, and its smallest, middle and largest value over the rounds are shown.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import dvsel

DVSEL = (sys.executable, "-m", "dvsel")
_POLL = 0.01  # seconds between two looks at the memory


@dataclass(frozen=True)
class Cost:
    """Seconds of one run, and the most memory that it and its descendants held at once, in bytes (0: not looked at).

    peak: what is their own. resident: with the pages of libraries and other files that are mapped, each as often as
    processes map it.
    """

    wall: float
    cpu: float
    peak: int = 0
    resident: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.cpu + other.cpu)


Rounds = Mapping[str, Sequence[Cost]]


def here(work: Callable[[], object]) -> Cost:
    """Run `work` in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def command(*argv: str | Path, stdin: Path | None = None) -> Cost:
    """Run a command to its end; what it prints is dropped, its failure raises."""
    wall = time.perf_counter()
    with open(stdin or os.devnull, "rb") as source:  # noqa: PTH123  (a path or the null device)
        child = subprocess.Popen([str(word) for word in argv], stdin=source, stdout=subprocess.DEVNULL)
    watch = _Watch(child.pid)
    watch.start()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - wall
    child.returncode = os.waitstatus_to_exitcode(status)
    watch.stop()
    if child.returncode:
        raise RuntimeError(f"{' '.join(child.args)}: exit code {child.returncode}")  # type: ignore[arg-type]
    return Cost(wall, usage.ru_utime + usage.ru_stime, watch.peak, watch.resident)


class _Watch(threading.Thread):
    """Looks at the resident memory of a process and its descendants, on Linux."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak = self.resident = 0
        self._pid = pid
        self._done = threading.Event()

    def run(self) -> None:
        while Path("/proc").is_dir() and not self._done.wait(_POLL):
            looks = [_memory(pid) for pid in _tree(self._pid)]
            self.peak = max(self.peak, sum(own for own, _ in looks))
            self.resident = max(self.resident, sum(resident for _, resident in looks))

    def stop(self) -> None:
        """No more looks: the process is gone."""
        self._done.set()
        self.join()


def _tree(pid: int) -> Iterable[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _tree(int(child))


def _memory(pid: int) -> tuple[int, int]:
    """Bytes of a process's own, and all that are resident."""
    try:
        _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    except OSError:
        return 0, 0
    page = os.sysconf("SC_PAGE_SIZE")
    return (resident - shared) * page, resident * page


def alternate(jobs: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, list[Cost]]:
    """Each job in turn, over and over; the order is turned round from one round to the next."""
    costs: dict[str, list[Cost]] = {name: [] for name in jobs}
    for number in range(rounds):
        for name in list(jobs)[:: -1 if number % 2 else 1]:
            costs[name].append(jobs[name]())
    return costs


def spread(values: Iterable[float], digits: int = 2) -> str:
    """min / median / max."""
    found = list(values)
    return " / ".join(f"{value:,.{digits}f}" for value in (min(found), statistics.median(found), max(found)))


def ratio(rounds: Rounds, above: str, below: str, clock: str, scale: float = 1.0) -> list[float]:
    """Round by round, the cost of one job over that of the other, times `scale`. clock: "wall" or "cpu"."""
    pairs = zip(rounds[above], rounds[below], strict=True)
    return [scale * getattr(one, clock) / getattr(other, clock) for one, other in pairs]


def machine() -> str:
    """Where and when this was measured, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return (
        f"{date.today()}  {_processor()}, {cores} cores, {memory:.0f} GiB, {platform.system()}  "
        f"Python {platform.python_version()}, dvsel {dvsel.__version__}  load {load:.1f}"
    )


def _processor() -> str:
    """The model as Linux names it, with the family where the name says little."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = dict(line.split("\t", 1) for line in info.read_text().split("\n\n")[0].splitlines() if "\t" in line)
    values = {name.strip(): value.strip("\t: ") for name, value in fields.items()}
    family = f"family {values.get('cpu family', '?')} model {values.get('model', '?')}"
    return f"{values.get('model name', platform.machine())} ({family})"


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns, the first to the left, the others to the right."""
    lines = [list(heads), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}")
    for line in lines:
        others = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("   ".join(["  " + line[0].ljust(widths[0]), *others]))
