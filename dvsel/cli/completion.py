"""Completion: when a shell asks for it, the app is built for the words that are typed so far."""

from __future__ import annotations

import os
import shlex
import sys

_ASKED = "_DVSEL_COMPLETE"


def is_asked() -> bool:
    """True where a shell asks for completions."""
    return _ASKED in os.environ


def words() -> list[str]:
    """Return the words after `dvsel`: of this process, or of the command that a shell asks to complete."""
    if not is_asked():
        return sys.argv[1:]
    if "COMP_WORDS" in os.environ:  # bash
        return _split(os.environ["COMP_WORDS"])[1:]
    return _split(os.environ.get("_TYPER_COMPLETE_ARGS", ""))[1:]


def _split(line: str) -> list[str]:
    """Split a line as a shell does; a quotation that is not closed ends with the line."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words = []
    try:
        for word in lexer:
            words.append(word)
    except ValueError:  # a quotation that is not closed
        words.append(lexer.token)
    return words
