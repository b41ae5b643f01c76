"""Progress on stderr: a bar for each stage on a terminal, a line a minute in a log.

Both say the share that is done, the time left, documents and tokens where they are counted, and the rate; or what is
waited for. Time that was waited, and what an earlier start did, do not count for the rate.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from dvsel.progress import Done, Progress
from dvsel.redact import printable

_FIRST_LINE, _NEXT_LINES = 10, 60  # seconds
_FIRST_ESTIMATE = 2  # seconds of work, before which the time left is a guess
_BAR = 20  # characters


class Stage:
    """State of a stage, and the time that was spent on it."""

    def __init__(self) -> None:
        self.done, self.total = Done(), 0
        self._since = self._seen = time.monotonic()
        self._worked = 0.0

    def update(self, done: Done, total: int) -> None:
        """Take in how far the stage is."""
        now = time.monotonic()
        self._worked = self._work(now)
        if done.waits != self.done.waits:
            self._since = now
        self._seen, self.done, self.total = now, done, total

    def words(self) -> str:
        """The most important first, since a terminal may have no room for all."""
        if self.done.waits or not self.total:
            lasted = f"{_time(time.monotonic() - self._since)} so far"
            return f"{self.done.waits}, {lasted}" if self.done.waits else lasted
        share = min(self.done.bytes / self.total, 1.0)
        return ", ".join([f"{share:.0%} of {_size(self.total)}", *self._left(), *self._counts(), *self._rate()])

    def _counts(self) -> list[str]:
        counts = ((self.done.documents, "documents"), (self.done.tokens, "tokens"))
        return [f"{_amount(count)} {what}" for count, what in counts if count]

    def _left(self) -> list[str]:
        rate = self._a_second(self.done.bytes)
        missing = self.total - self.done.bytes
        return [f"{_time(missing / rate)} left"] if rate and missing > 0 else []

    def _rate(self) -> list[str]:
        if tokens := self._a_second(self.done.tokens):
            return [f"{_amount(tokens)} tokens/s"]
        rate = self._a_second(self.done.bytes)
        return [f"{_size(rate)}/s"] if rate else []

    def _a_second(self, amount: int) -> float:
        """Rate of an amount in this start, per second of work; 0 where it is too early to tell."""
        worked = self._work(time.monotonic())
        if worked < _FIRST_ESTIMATE or not self.done.bytes:
            return 0.0
        return amount * (1 - self.done.before / self.done.bytes) / worked

    def _work(self, now: float) -> float:
        """Seconds of work up to now."""
        return self._worked + (0.0 if self.done.waits else now - self._seen)


def _amount(number: float) -> str:
    return f"{number:,.0f}" if number < 10_000 else _scaled(number, ("k", "M", "B", "T"))


def _size(number: float) -> str:
    return f"{number:.0f} bytes" if number < 1000 else _scaled(number, (" kB", " MB", " GB", " TB", " PB"))


def _scaled(number: float, units: Sequence[str]) -> str:
    """Three digits, in the unit that fits, of which each is a thousand of the one before."""
    power = next((one for one in range(1, len(units)) if number < 999.5 * 1000**one), len(units))
    return f"{number / 1000**power:.3g}{units[power - 1]}"


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{minutes / 60 / 24:.1f} days"


@contextlib.contextmanager
def lines() -> Iterator[Progress]:
    """A line a minute, the first one sooner, about the stage at hand."""
    at_hand: dict[str, Stage] = {}
    ended = threading.Event()

    def show(stage: str, done: Done, total: int) -> None:
        state = at_hand.get(stage) or Stage()
        if stage not in at_hand:
            at_hand.clear()
            at_hand[stage] = state
        state.update(done, total)

    def speak() -> None:
        seconds = _FIRST_LINE
        while not ended.wait(seconds):
            seconds = _NEXT_LINES
            for stage, state in list(at_hand.items()):
                print(printable(f"{stage}: {state.words()}"), file=sys.stderr, flush=True)

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield show
    finally:
        ended.set()
        speaker.join()


@contextlib.contextmanager
def bars() -> Iterator[Progress]:
    """A bar for each stage; one without a known end goes when the next one begins."""
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
    from rich.progress import Progress as Bars
    from rich.table import Column
    from rich.text import Text

    shown: dict[str, tuple[Stage, Any]] = {}

    class Words(ProgressColumn):
        """Text of the stage's line."""

        def render(self, task: Task) -> Text:
            words: str = task.fields["state"].words()
            return Text(words, no_wrap=True, overflow="ellipsis")

    columns = (TextColumn("{task.description}", markup=False), BarColumn(_BAR), Words(Column(no_wrap=True)))
    with Bars(*columns, console=Console(stderr=True), refresh_per_second=4) as drawn:

        def show(stage: str, done: Done, total: int) -> None:
            if stage not in shown:
                for other in [name for name, (state, _) in shown.items() if not state.total]:
                    drawn.remove_task(shown.pop(other)[1])
                state = Stage()
                shown[stage] = state, drawn.add_task(printable(stage), total=None, state=state)
            state, bar = shown[stage]
            state.update(done, total)
            drawn.update(bar, completed=done.bytes, total=total or None)

        yield show
