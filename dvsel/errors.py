"""Errors on the user's side: one sentence with the place, the cause and the remedy.

The command line prints a `UserError` as one line and exits with 1; a traceback is shown only with
`--debug`. Every other exception is a bug of dvsel or of a plug-in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_LONGEST = 80  # characters
_UNCLEAR = (AttributeError, LookupError, TypeError)  # say little without their names
_EXTRA = ("torch", "transformers")  # packages that come with the extra `models`


class UserError(Exception):
    """A mistake or a fault that the user can fix. The message is one line: place, cause, remedy."""


class Notice(UserWarning):
    """Something that the user should know and that is not an error: `warnings.warn(Notice("place: what"))`."""


class BadFile(UserError):
    """A file whose documents cannot be read, through its own fault and no passing one."""


class BadLine(UserError):
    """A line that holds no usable document."""

    def __init__(self, place: str, line: int, cause: str) -> None:
        super().__init__(f"{place}, line {line}: {cause}; fix the line, or pass --on-bad-line skip")


@contextlib.contextmanager
def needing_packages() -> Iterator[None]:
    """Turns the lack of a package that an extra brings into a UserError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise UserError(f"this needs the package {error.name}; pip install 'dvsel[models]'") from error


def shown(value: object) -> str:
    """A value in a message: as Python writes it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than some thousand digits
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


@contextlib.contextmanager
def explained(place: str, remedy: str) -> Iterator[None]:
    """Turns whatever goes wrong in a library, and in what it calls, into a UserError with its first sentence."""
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of a library in Rust
            raise
        raise UserError(f"{place}: {_cause(error)}; {remedy}") from error


def _cause(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    cause, kind = lines[0].split(". ")[0].strip(" .:!,"), type(error).__name__
    return f"{kind}: {cause}" if cause and isinstance(error, _UNCLEAR) else cause or kind
