"""How dvsel compiles its kernels: once, kept on disk, without the interpreter's lock.

Compiled kernels are pickles: whoever writes one runs code as whoever loads it. So they lie where this user alone (and
root) can put files: in NUMBA_CACHE_DIR where that is such a folder and DVSEL_CACHE names none, else in `kernels` of
`dvsel.kernels.cache`, else in a temporary folder of the user's own. Where there is none they are compiled by each
process. A damaged file, or a full disk, costs the time to compile, and no more.
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

from numba import config, njit
from numba.core import event
from numba.core.caching import CompileResultCacheImpl, FunctionCache

from dvsel.kernels import cache
from dvsel.progress import WAITS, waiting

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class _Told(event.Listener):  # type: ignore[misc]  # numba has no types
    """Has progress say that a kernel is being compiled, which takes seconds."""

    def __init__(self) -> None:
        self._waits: list[contextlib.AbstractContextManager[None]] = []

    def on_start(self, _: Any) -> None:
        self._waits.append(waiting(WAITS[1]))
        self._waits[-1].__enter__()

    def on_end(self, _: Any) -> None:
        self._waits.pop().__exit__(None, None, None)


class _InGivenFolder(CompileResultCacheImpl):  # type: ignore[misc]
    """Nowhere but in `config.CACHE_DIR`."""

    _locator_classes = CompileResultCacheImpl._locator_classes[:1]


class _Cache(FunctionCache):  # type: ignore[misc]
    """numba's, without its errors."""

    _impl_class = _InGivenFolder

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling makes of a damaged file
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


def kernel(function: Kernel) -> Kernel:
    """Compile `function` at its first call; later processes load it from the cache."""
    compiled: Any = njit(nogil=True, error_model="numpy")(function)
    if folder := _folder():
        with _numba_caches_in(folder), contextlib.suppress(RuntimeError):  # it cannot be written to after all
            compiled._cache = _Cache(function)  # as `enable_caching` does
    return cast(Kernel, compiled)


def bare_kernel(function: Kernel) -> Kernel:
    """A `kernel` that allocates nothing, and so can do without numba's reference counts on its arrays: they are
    atomic, and in small functions they cost more than the work itself."""
    compiled: Any = kernel(function)
    compiled.targetoptions["_nrt"] = False
    return cast(Kernel, compiled)


@functools.cache
def _folder() -> Path | None:
    """Where kernels are kept; None for nowhere."""
    return next((folder for folder in map(_own, _candidates()) if folder), None)


def _candidates() -> Iterator[Path]:
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given and not os.environ.get(cache.VARIABLE):
        yield Path(given)
    with contextlib.suppress(RuntimeError):  # no home
        yield cache.folder() / "kernels"
    yield Path(tempfile.gettempdir()) / f"dvsel-kernels-{os.getuid()}"


def _own(folder: Path) -> Path | None:
    """The folder without links, made if need be, if this user and root alone can put files there; else None."""
    with contextlib.suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder = folder.parent.resolve() / folder.name
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
        ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & _OTHERS_WRITE
        if ours and os.access(folder, os.W_OK) and all(map(_holds_still, folder.parents)):
            return folder
    return None


def _holds_still(parent: Path) -> bool:
    """Whether nobody else can put another folder in the place of one that lies here."""
    status = parent.stat()
    open_to_all = status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX
    return status.st_uid in (0, os.getuid()) and not open_to_all


event.register("numba:compile", _Told())


@contextlib.contextmanager
def _numba_caches_in(folder: Path) -> Iterator[None]:
    """For what is cached here alone: numba's place for the functions of others stays as it is."""
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before
