"""Files that a run keeps only while it goes on: where they cannot be written, a UserError names one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.errors import UserError

_PIECE = 1 << 20  # numbers


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error in writing the file into a UserError."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        remedy = "free some space, or choose another folder"
        raise UserError(f"{path}: cannot write temporary files ({cause}); {remedy}") from error


def mapped(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...], fill: float) -> npt.NDArray[Any]:
    """Map an array in a new file, full of `fill`.

    The file is written out, since a full disk kills who maps a sparse one and then needs what is not there.
    """
    size = int(np.prod(shape))
    with writing(path), path.open("wb") as file:
        for first in range(0, size, _PIECE):
            file.write(np.full(min(_PIECE, size - first), fill, dtype).data)
    return np.memmap(path, dtype, "r+", shape=shape)
