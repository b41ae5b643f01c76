"""What the fuzzers share: how often they run, seeds that name a failure, memory that nothing may be read beyond.

`DVSEL_FUZZ` says how many cases each fuzzer tries; without it a few seconds' worth.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
from collections.abc import Callable

import numpy as np

from dvsel.documents.columns import Bytes

_LIBC = ctypes.CDLL(None, use_errno=True)


def fuzz(usual: int, case: Callable[[random.Random], int | None]) -> None:
    """Try `DVSEL_FUZZ` cases, or `usual`. A call of `case` says how many it tried, or None for one."""
    wanted = int(os.environ.get("DVSEL_FUZZ") or usual)
    seed = done = 0
    while done < wanted:
        try:
            done += case(random.Random(seed)) or 1
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        seed += 1


class GuardedMemory:
    """Memory between two pages that kill who touches them."""

    def __init__(self, size: int) -> None:
        page = mmap.PAGESIZE
        self.size = -(-size // page) * page
        self._map = mmap.mmap(-1, self.size + 2 * page)
        self._bytes = np.frombuffer(self._map, np.uint8)[page : page + self.size]
        begin = self._bytes.ctypes.data
        for guard in (begin - page, begin + self.size):
            assert not _LIBC.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0), os.strerror(ctypes.get_errno())

    def at_end(self, size: int) -> Bytes:
        """The last bytes, which a guard follows."""
        return self._bytes[self.size - size :]

    def at_start(self, size: int) -> Bytes:
        """The first bytes, with a guard before them."""
        return self._bytes[:size]
