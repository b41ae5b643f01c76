"""Ctrl-C: places where it ends the process, where it raises KeyboardInterrupt, and where it waits.

- Before a command has begun, and after it, there is nothing to clean up: the process ends at once.
- In a command KeyboardInterrupt is raised, so that what is open is closed and workers end.
- Python raises it in whatever code runs. In an import, and while numba compiles or loads a kernel, that may be code
  that drops it (callbacks from C: the run would go on) or that breaks by it (LLVM, half-way: deadlock, abort). There it
  waits until that code is done.
- Where it is dropped all the same (`__del__`, callbacks of weak references and of ctypes), it is raised again.
- A second one, half a second later or more, ends the process at once; workers die with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

EXIT_CODE = 130

_LOOK_AGAIN = 0.02  # seconds
_APART = 0.5  # seconds; sooner it is the same Ctrl-C, which some launchers pass on once more
_IMPORT = "<frozen importlib"
_DELICATE = ("numba", "llvmlite")  # packages
_SHOW_CURSOR = b"\x1b[?25h"  # which progress bars hide


def message(kept: Sequence[str] = ()) -> str:
    """Return the line for the user. kept: the part of the work that is kept, in words."""
    return "; ".join(("interrupted", *kept, "the same command goes on from here"))


class _Interrupts:
    """Handler of SIGINT and of the timer that it sets."""

    in_command = False
    asked: float | None = None  # when the first Ctrl-C came
    waits = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            again = self.asked is not None and time.monotonic() - self.asked > _APART
            if again or not self.in_command:
                _end()
            if self.asked is None:
                self.asked = time.monotonic()
                self._raise_or_wait(frame)
        elif self.waits:
            if not self.in_command:
                _end()
            self._raise_or_wait(frame)

    def dropped(self, what: Any) -> None:
        """Handle an exception that Python cannot raise where it came up."""
        if self.asked is not None and issubclass(what.exc_type, KeyboardInterrupt):
            self._wait()
        else:
            sys.__unraisablehook__(what)

    def _raise_or_wait(self, frame: FrameType | None) -> None:
        self.waits = False
        if not _is_delicate(frame):
            raise KeyboardInterrupt
        self._wait()

    def _wait(self) -> None:
        self.waits = True
        signal.setitimer(signal.ITIMER_REAL, _LOOK_AGAIN)


_interrupts = _Interrupts()


def install() -> None:
    """Handle Ctrl-C as the module says from here to the end of the process, where the system has timers.

    Nothing changes where the process ignores Ctrl-C, as background jobs of a shell do, or handles it otherwise.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or not hasattr(signal, "setitimer"):
        return
    sys.unraisablehook = _interrupts.dropped
    for number in (signal.SIGALRM, signal.SIGINT):
        signal.signal(number, _interrupts.handle)


@contextlib.contextmanager
def command() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block, or at its end, so that it can clean up when it is interrupted."""
    _interrupts.in_command = True
    try:
        yield
    finally:
        _interrupts.in_command = False
    if _interrupts.waits:
        raise KeyboardInterrupt


def _is_delicate(frame: FrameType | None) -> bool:
    while frame:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package in _DELICATE or frame.f_code.co_filename.startswith(_IMPORT):
            return True
        frame = frame.f_back
    return False


def _end() -> NoReturn:
    with contextlib.suppress(OSError):
        os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + f"dvsel: {message()}\n".encode())
    os._exit(EXIT_CODE)
