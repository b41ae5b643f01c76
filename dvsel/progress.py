"""Progress of the work at hand: the one way from whoever does the work to whoever shows it, through no parameter.

`showing` installs what shows it. A stage is told with `show` or `tell`, under the name of the `step` that it is part
of. Whoever takes long for one batch of the pool tells the share of it that is done with `within`, and says with
`parts` that this is one pass of several. `waiting` says why nothing moves. `dvsel.engines.local` collects the last
three from its processes, and tells their sum.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Done:
    """Amounts that are done of a stage. bytes: of the whole; before: those of them that an earlier start did.

    documents, tokens: 0 where nobody counts them. waits: why nothing moves, or "".
    """

    bytes: int = 0
    documents: int = 0
    tokens: int = 0
    before: int = 0
    waits: str = ""

    def __add__(self, other: Done) -> Done:
        """The sums of both, as far as they have some."""
        return Done(
            self.bytes + other.bytes,
            self.documents + other.documents,
            self.tokens + other.tokens,
            self.before + other.before,
            self.waits or other.waits,
        )


_NOTHING = Done()

Progress = Callable[[str, Done, int], None]
"""Called with the stage, what is done and the whole in bytes, 0 where that is not known."""

WAITS = ("loading a model", "compiling kernels")
"""Causes of a wait."""


def silent(stage: str, done: Done, total: int) -> None:
    """Show no progress."""


_shown: Progress = silent
_on_share: Callable[[float], None] | None = None
_on_wait: Callable[[str, int], None] | None = None
_part = (0.0, 1.0)


def show(stage: str, done: int, total: int, documents: int = 0, tokens: int = 0) -> None:
    """Tell that `done` of `total` bytes of a stage are done, total 0 where it is not known."""
    tell(stage, Done(done, documents, tokens), total)


def tell(stage: str, done: Done = _NOTHING, total: int = 0) -> None:
    """Tell what is done of a stage, of `total` bytes, 0 where that is not known."""
    _shown(stage, done, total)


@contextlib.contextmanager
def showing(progress: Progress) -> Iterator[None]:
    """Have `progress` called with what is told meanwhile."""
    global _shown
    before, _shown = _shown, progress
    try:
        yield
    finally:
        _shown = before


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Have the stages that are told meanwhile named `name: stage`."""
    shown = _shown
    with showing(lambda stage, done, total: shown(f"{name}: {stage}", done, total)):
        yield


@contextlib.contextmanager
def stopped_in(place: str) -> Iterator[None]:
    """Have Ctrl-C name the step of a run in which it came, beside what is kept of it."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(f"this was {place}")
        raise


# --- Within a batch. ---


def within(share: float) -> None:
    """Tell the share of the batch at hand, or of its part, that is done, 0 to 1."""
    if _on_share is not None:
        begin, size = _part
        _on_share(begin + size * share)


def parts(passes: Sequence[Item]) -> Iterator[Item]:
    """The items of a loop; what `within` tells in its body is of that item's part of the work, all alike."""
    global _part
    before = begin, size = _part
    try:
        for number, one in enumerate(passes):
            _part = begin + size * number / len(passes), size / len(passes)
            yield one
    finally:
        _part = before


@contextlib.contextmanager
def watched(on_share: Callable[[float], None]) -> Iterator[None]:
    """Have `on_share` called by `within`."""
    global _on_share
    before, _on_share = _on_share, on_share
    try:
        yield
    finally:
        _on_share = before


# --- Waiting. ---


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say that nothing moves meanwhile; what: of `WAITS`."""
    on_wait = _on_wait
    if on_wait is None:
        show(what, 0, 0)
        yield
        return
    on_wait(what, 1)
    try:
        yield
    finally:
        on_wait(what, -1)


def on_waits(told: Callable[[str, int], None] | None) -> None:
    """Have `told` called with what somebody waits for, and 1 when it begins or -1 when it ends; None: have it shown."""
    global _on_wait
    _on_wait = told
