"""Compiled loops over vectors that `clusters`, `facility` and `duplicates` share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dvsel.kernels.jit import Kernel, compiled

Floats = npt.NDArray[np.float32]


def summing_kernel(function: Kernel) -> Kernel:
    """Compile a `kernel` whose sums may be added up in any order, and so many terms at once; NaN and infinity stay.

    The order is the compiler's: the same from run to run on one machine.
    """
    # Of all that "fastmath" allows these two alone: the others let the compiler assume that there is no NaN.
    return compiled(function, fastmath={"reassoc", "contract"})


@summing_kernel
def squared_distance(one: Floats, other: Floats) -> np.float32:
    """Sum of squared differences; exactly 0 for equal vectors."""
    total = np.float32(0)
    for place in range(len(one)):
        difference = one[place] - other[place]
        total += difference * difference
    return total
