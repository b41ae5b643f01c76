"""Ctrl-C, where it breaks nothing off in the middle of an import.

Python raises KeyboardInterrupt in whatever code runs. In an import that may be code that drops it (`except:`, callbacks
of weak references: the run would go on), or a C extension that raises an error of its own in its place.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_LOOK_AGAIN = 0.02  # seconds
_IMPORT = "<frozen importlib"


@contextlib.contextmanager
def after_imports() -> Iterator[None]:
    """Ctrl-C in an import is raised after it, here where the system has timers.

    Nothing changes where the process ignores Ctrl-C, as background jobs of a shell do, or handles it otherwise.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or not hasattr(signal, "setitimer"):
        yield
        return
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGALRM)}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    if not _is_import(frame):
        raise KeyboardInterrupt
    signal.setitimer(signal.ITIMER_REAL, _LOOK_AGAIN)


def _is_import(frame: FrameType | None) -> bool:
    while frame and not frame.f_code.co_filename.startswith(_IMPORT):
        frame = frame.f_back
    return frame is not None
