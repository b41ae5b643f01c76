"""The folder of what dvsel need not compute twice: `$DVSEL_CACHE`, else `dvsel` in the user's cache folder.

Compiled kernels are code, so the folder has to be the user's own, for nobody else to write to.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dvsel.errors import UserError, shown

VARIABLE = "DVSEL_CACHE"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def folder() -> Path:
    """Return the folder, which need not exist. Raises RuntimeError where the user has no home."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dvsel"


def check() -> None:
    """Raise UserError where the user names a folder that cannot be used."""
    if not (named := os.environ.get(VARIABLE)):
        return
    remedy = f"name a folder of your own in {VARIABLE}, or unset it"
    try:
        Path(named).mkdir(mode=0o700, parents=True, exist_ok=True)
        status = Path(named).stat()
    except (OSError, ValueError) as error:
        raise UserError(f"{VARIABLE} {shown(named)}: no folder can be made there ({error}); {remedy}") from error
    is_mine = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    if not is_mine or status.st_mode & _OTHERS_WRITE or not os.access(named, os.W_OK):
        raise UserError(f"{VARIABLE} {shown(named)}: others can write there, or you cannot; {remedy}")
