"""Output for terminals that lack some of the characters that dvsel prints.

Python fails to print a character that the terminal's encoding lacks (a C locale, a code page of Windows,
PYTHONIOENCODING). Here bars and dots have replacements, and all else is escaped. Data is written as bytes, and stays
UTF-8.
"""

from __future__ import annotations

import codecs
import io
import sys

_ERRORS = "dvsel"
_STAND_INS = {"█": "#", "░": ".", "…": ".", "—": "-", "–": "-", "×": "x", "‘": "'", "’": "'", "“": '"', "”": '"'}


def adapt() -> None:
    """Let stdout and stderr replace or escape characters that their encoding lacks."""
    codecs.register_error(_ERRORS, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_STAND_INS.get(one, one.encode("ascii", "backslashreplace").decode()) for one in lacking), error.end
