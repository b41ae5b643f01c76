"""Exit codes: 0 done, 1 failed with one line, 2 usage, 130 interrupted; a closed pipe ends a command quietly."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import typer

from dvsel.cli import interrupts
from dvsel.errors import Notice, UserError, needing_packages
from dvsel.kernels import cache
from dvsel.redact import printable
from dvsel.storage.places import check_utf8

_SEE = "`dvsel --debug` with the same command shows where"
_LAST_RESORT: dict[type[Exception], str] = {  # errors that input can cause almost everywhere
    MemoryError: "out of memory; give fewer --workers, or take a machine with more of it",
    RecursionError: "an input is nested too deeply; make it flatter",
    UnicodeError: "a name or a text is not UTF-8; rename or rewrite it",
}


def with_exit_codes(body: Callable[..., Any]) -> Callable[..., Any]:
    """Return `body` with errors turned into an exit code and a line on stderr."""

    @functools.wraps(body)
    def run(*args: Any, **options: Any) -> None:
        warnings.showwarning = _warn
        try:
            with interrupts.command(), needing_packages():
                for word in sys.argv:
                    check_utf8(word)
                cache.check()
                body(*args, **options)
                sys.stdout.flush()
        except BrokenPipeError:
            # Python flushes stdout once more at exit, which would fail again, and loudly.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except KeyboardInterrupt as stop:
            _say(interrupts.message(getattr(stop, "__notes__", ())))
            raise typer.Exit(interrupts.EXIT_CODE) from None
        except UserError as error:
            _fail(str(error))
        except tuple(_LAST_RESORT) as error:
            _fail(f"{next(text for kind, text in _LAST_RESORT.items() if isinstance(error, kind))} ({_SEE})")
        except OSError as error:
            _fail(f"{error.filename or 'dvsel'}: {error.strerror or error}")

    return run


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning of dvsel; those of libraries are for programmers who call them."""
    if isinstance(message, Notice):
        _say(f"warning: {message}")


def _fail(message: str) -> None:
    if "--debug" in sys.argv:
        raise
    _say(message)
    raise typer.Exit(1) from None


def _say(message: str) -> None:
    print(f"dvsel: {printable(' '.join(message.split()))}", file=sys.stderr)
