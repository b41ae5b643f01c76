"""Each of a job's processes has a number of its own, by which it takes a device."""

from __future__ import annotations

import os
import time
from pathlib import Path

from dvsel.engines import local, worker

WORKERS = 3


def tell(folder: str) -> tuple[int, int]:
    """Process and number, once all workers are at work."""
    (Path(folder) / str(os.getpid())).touch()
    while len(list(Path(folder).iterdir())) < WORKERS:
        time.sleep(0.01)
    return os.getpid(), worker.number


def test_workers_are_numbered(tmp_path: Path) -> None:
    for job in ("first", "second"):
        (tmp_path / job).mkdir()
        found = set(local.run(tell, [str(tmp_path / job)] * 2 * WORKERS, WORKERS))
        assert sorted(number for _, number in found) == list(range(WORKERS))
    assert worker.number == 0
