"""How soon dvsel answers: its help beside that of an empty typer program, and the first score on a pipe.

    python benchmarks/startup.py [--repeats 20]

The first score is the time from the start of `dvsel score dsir --fitted F -` to its first line on stdout, with one
line written to its stdin, which stays open. Kernels are compiled and cached before.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from corpora import Corpus, corpus, parser_of
from measure import DVSEL, Cost, alternate, command, machine, ratio, spread, table

EMPTY = '''
import typer

app = typer.Typer()


@app.command()
def main(name: str) -> None:
    """Do nothing."""


app()
'''


def main() -> None:
    parser = parser_of(__doc__, repeats=20)
    options = parser.parse_args()
    with corpus(options) as documents:
        print(machine())
        compare_help(documents.folder, options.repeats)
        time_first_score(documents, options.repeats)


def compare_help(folder: Path, repeats: int) -> None:
    """`dvsel --help` beside the help of a program that imports typer and has one empty command."""
    empty = folder / "empty.py"
    empty.write_text(EMPTY)
    jobs = {
        "python -c pass": lambda: command(sys.executable, "-c", "pass"),
        "empty typer --help": lambda: command(sys.executable, empty, "--help"),
        "dvsel --help": lambda: command(*DVSEL, "--help"),
    }
    alternate(jobs, 1)
    rounds = alternate(jobs, repeats)
    table(
        f"help; {repeats} rounds, min / median / max",
        ["", "CPU ms", "wall ms", "times empty typer, CPU", "times empty typer, wall"],
        [
            [
                name,
                *(spread((1e3 * getattr(cost, clock) for cost in rounds[name]), 0) for clock in ("cpu", "wall")),
                *(spread(ratio(rounds, name, "empty typer --help", clock)) for clock in ("cpu", "wall")),
            ]
            for name in jobs
        ],
    )


def time_first_score(documents: Corpus, repeats: int) -> None:
    """Seconds to the first line out, and CPU seconds of the whole process."""
    shard = documents.write("pool.jsonl", 1 << 20)
    fitted = documents.fit(shard)
    line = next(documents.lines())
    first_score(fitted, line)
    costs = [first_score(fitted, line) for _ in range(repeats)]
    table(
        f"first score on stdin; {repeats} rounds, min / median / max",
        ["", "CPU s", "wall s"],
        [["dvsel score dsir --fitted F -", spread(cost.cpu for cost in costs), spread(cost.wall for cost in costs)]],
    )


def first_score(fitted: Path, line: bytes) -> Cost:
    """One line in; wall seconds until one comes out."""
    start = time.perf_counter()
    argv = [*DVSEL, "score", "dsir", "--fitted", str(fitted), "-"]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin and child.stdout
    child.stdin.write(line)
    child.stdin.flush()
    scored = child.stdout.readline()
    wall = time.perf_counter() - start
    assert b"dvsel_dsir" in scored
    child.stdin.close()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    child.stdout.close()
    return Cost(wall, usage.ru_utime + usage.ru_stime)


if __name__ == "__main__":
    main()
