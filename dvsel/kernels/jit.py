"""Compile dvsel's kernels: once, kept on disk, without the interpreter's lock.

Compiled kernels are pickles: whoever writes one runs code as whoever loads it. So they lie where this user alone (and
root) can put files: in NUMBA_CACHE_DIR where that is such a folder and DVSEL_CACHE names none, else in `kernels` of
`dvsel.kernels.cache`, else in a temporary folder of the user's own. Where no folder is safe, each process compiles for
itself. A damaged file, or a full disk, costs the time to compile, and no more.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

from dvsel import private
from dvsel.kernels import cache
from dvsel.progress import WAITS, waiting

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def kernel(function: Kernel) -> Kernel:
    """Compile `function` at its first call; later processes load it from the cache."""
    return compiled(function)


def bare_kernel(function: Kernel) -> Kernel:
    """Compile as `kernel` does, for a function that allocates nothing: without numba's reference counts on its arrays,
    which are atomic, and in small functions cost more than the work itself."""
    return compiled(function, **private.without_reference_counts())


def compiled(function: Kernel, **options: Any) -> Kernel:
    """Compile `function` as `kernel` does, with further options of numba's."""
    # numpy's error model: a division by zero gives infinity, where Python's would need a check and an exception.
    made: Any = njit(nogil=True, error_model="numpy", **options)(function)
    if folder := _folder():
        private.keep_compiled(made, folder)
    return cast(Kernel, made)


@functools.cache
def _folder() -> Path | None:
    """Return the folder that kernels are kept in; None for nowhere."""
    return next((folder for folder in map(_own, _candidates()) if folder), None)


def _candidates() -> Iterator[Path]:
    given = os.environ.get("NUMBA_CACHE_DIR")
    # dvsel's own variable wins: NUMBA_CACHE_DIR is often set for all programs.
    if given and not os.environ.get(cache.VARIABLE):
        yield Path(given)
    with contextlib.suppress(RuntimeError):  # no home
        yield cache.folder() / "kernels"
    yield Path(tempfile.gettempdir()) / f"dvsel-kernels-{os.getuid()}"


def _own(folder: Path) -> Path | None:
    """Return the folder, made if need be and with links resolved; None if others than user and root can write there."""
    with contextlib.suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Links above it are resolved now: whoever owns one could turn it elsewhere after the check. The folder itself
        # may not be one: to `lstat` a link is not a folder.
        folder = folder.parent.resolve() / folder.name
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
        ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & _OTHERS_WRITE
        if ours and os.access(folder, os.W_OK) and all(map(_holds_still, folder.parents)):
            return folder
    return None


def _holds_still(parent: Path) -> bool:
    """Return whether nobody else can put another folder in the place of one that lies here."""
    status = parent.stat()
    # In a sticky folder, such as /tmp, all may write, but only owners can rename what is theirs.
    open_to_all = status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX
    return status.st_uid in (0, os.getuid()) and not open_to_all


_waits: list[contextlib.AbstractContextManager[None]] = []  # a compilation may start others


def _begin_waiting() -> None:
    _waits.append(waiting(WAITS[1]))
    _waits[-1].__enter__()


def _end_waiting() -> None:
    _waits.pop().__exit__(None, None, None)


private.around_compilation(_begin_waiting, _end_waiting)
