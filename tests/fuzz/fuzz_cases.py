"""Random cases in a process of their own: one that crashes, hangs or takes too much memory is told by its number.

A script beside this file calls `run`; a test calls `check` with the script's name. A case depends on the seed and its
number alone. DVSEL_FUZZ is how many cases each test tries, in place of its own number.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from commands import environment

SECONDS = 60  # a case
ROOM = 3 << 30  # bytes of address space, beside what the process has when it begins
MOST_TOLD = 20


def check(script: str, folder: Path, count: int, *words: object, seed: int = 0, **variables: str) -> dict[str, int]:
    """Try cases; what became of how many. AssertionError where one ended as none may."""
    command = [sys.executable, "-W", "ignore", Path(__file__).with_name(script), folder, seed, count, *words]
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": os.devnull}
    answer = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=environment(**offline | variables), check=False
    )
    case = folder / f"case-{seed}"
    number = case.read_text().strip() if case.exists() else "none"
    tried = f"{script} ended with {answer.returncode} at case {seed} {number}"
    assert answer.returncode == 0, f"{tried}\n{answer.stdout[-10_000:]}\n{answer.stderr[-3000:]}"
    found: dict[str, int] = json.loads(answer.stdout.splitlines()[-1])
    return found


def executions(usual: int) -> int:
    """How many cases to try."""
    return int(os.environ.get("DVSEL_FUZZ", usual))


def run(case: Callable[[random.Random], str], first: int = 0) -> None:
    """The script's cases: FOLDER SEED COUNT of the command line, from number `first`; ends the process."""
    folder, seed, count = Path(sys.argv[1]), *map(int, sys.argv[2:4])
    _limit()
    found: Counter[str] = Counter()
    failures = 0
    with (folder / f"case-{seed}").open("w") as file:
        for number in range(first, first + count):
            os.pwrite(file.fileno(), f"{number}\n".encode(), 0)
            signal.alarm(SECONDS)
            try:
                found[case(random.Random(f"{seed} {number}"))] += 1
            except Exception:
                failures += 1
                if failures < MOST_TOLD:
                    print(f"case {seed} {number}: {traceback.format_exc()}", flush=True)
            signal.alarm(0)
    print(json.dumps(found))
    sys.exit(failures > 0)


def _limit() -> None:
    """Bound the memory, and let a case that hangs end the process."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
