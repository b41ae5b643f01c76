"""What a shell asks, when it completes a command: the app has to be built for the words that are there so far."""

from __future__ import annotations

import os
import shlex
import sys

_ASKED = "_DVSEL_COMPLETE"


def is_asked() -> bool:
    """Whether a shell asks."""
    return _ASKED in os.environ


def words() -> list[str]:
    """The words after `dvsel`: of this process, or of the command that a shell asks to complete."""
    if not is_asked():
        return sys.argv[1:]
    if "COMP_WORDS" in os.environ:  # bash
        return _split(os.environ["COMP_WORDS"])[1:]
    return _split(os.environ.get("_TYPER_COMPLETE_ARGS", ""))[1:]


def _split(line: str) -> list[str]:
    """As a shell does; what is not closed yet ends with the line."""
    found = shlex.shlex(line, posix=True)
    found.whitespace_split, found.commenters = True, ""
    there = []
    try:
        for word in found:
            there.append(word)
    except ValueError:  # a quotation that is not closed
        there.append(found.token)
    return there
