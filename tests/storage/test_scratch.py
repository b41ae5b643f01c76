"""Temporary files: written out, and named where the disk is full."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from dvsel.errors import UserError
from dvsel.storage.scratch import mapped, writing


@pytest.mark.parametrize(("dtype", "fill"), [(np.float32, np.nan), (np.int32, -1), (np.uint8, 0)])
def test_an_array_in_a_file(dtype: type, fill: float, tmp_path: Path) -> None:
    array = mapped(tmp_path / "array", dtype, (600_000, 2), fill)
    assert array.dtype == dtype and array.shape == (600_000, 2)
    assert np.array_equal(array, np.full((600_000, 2), fill, dtype), equal_nan=True)
    array[7, 1] = 5
    assert np.fromfile(tmp_path / "array", dtype)[15] == 5
    assert (tmp_path / "array").stat().st_blocks * 512 >= array.nbytes, "sparse: a full disk would kill"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a full disk, /dev/full")
def test_a_full_disk_is_one_line_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "array").symlink_to("/dev/full")
    says = r"array: cannot write temporary files \(No space left on device\); free some space"
    with pytest.raises(UserError, match=says):
        mapped(tmp_path / "array", np.float32, (5,), 0)
    with pytest.raises(UserError, match=says), writing(tmp_path / "array"):
        (tmp_path / "array").write_bytes(b"content")
