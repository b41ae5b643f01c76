"""Arrays that lie between pages that nobody may touch: what is read or written beside them ends the process."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_PAGE = mmap.PAGESIZE
_LIBC = ctypes.CDLL(None, use_errno=True)


def guarded(array: Array, at_end: bool = True) -> Array:
    """A copy that ends where a guarded page begins, or else begins where one ends. Its pages go with the array."""
    size = -(-max(array.nbytes, 1) // _PAGE) * _PAGE
    pages = mmap.mmap(-1, size + 2 * _PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    for page in (start, start + _PAGE + size):
        if _LIBC.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(_PAGE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    begin = _PAGE + (size - array.nbytes if at_end else 0)
    copy = np.frombuffer(pages, array.dtype, array.size, begin).reshape(array.shape)
    copy[...] = array
    return copy
