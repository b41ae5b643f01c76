"""Terminals that know fewer characters than dvsel writes: bars and dots have stand-ins, all else is shown escaped.

Python refuses to print what a terminal's encoding lacks (a C locale, a code page of Windows, PYTHONIOENCODING). What is
written for people goes on all the same. Data is written as bytes, and stays UTF-8.
"""

from __future__ import annotations

import codecs
import io
import sys

_ERRORS = "dvsel"
_STAND_INS = {"█": "#", "░": ".", "…": ".", "—": "-", "–": "-", "×": "x", "‘": "'", "’": "'", "“": '"', "”": '"'}


def adapt() -> None:
    """Have stdout and stderr print whatever their encoding lacks."""
    codecs.register_error(_ERRORS, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_STAND_INS.get(one, one.encode("ascii", "backslashreplace").decode()) for one in lacking), error.end
