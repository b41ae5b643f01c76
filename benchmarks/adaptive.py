"""What `--adaptive` finds and saves, beside scoring everything.

    python benchmarks/adaptive.py EMB --fitted FILE [--shares .1 .25 .5] [--seeds 3] [--clusters N]

EMB is a folder of `dvsel embed`, FILE any fitted scorer. The whole pool is scored once; then for each share and seed a
part is, by the command itself. Of the best 1%, 5%, and of as many as the command says that it looks for (half the
share), this prints which part was scored, and what the command estimated of the latter; at random each would be the
share itself. CPU time is that of the whole command, clusters included.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import re
import statistics
import tempfile
from pathlib import Path

import numpy as np
from measure import DVSEL, command, machine, table

from dvsel.interface.registry import SCORERS, name_of
from dvsel.runs.fitted_files import load
from dvsel.runs.output_folder import REPORT
from dvsel.score_files.reader import ScoreFile


def main() -> None:
    """Score everything, then parts, and print the table."""
    args = _arguments()
    name = name_of(SCORERS, type(load(args.fitted)[0].scorer))
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        base = (*DVSEL, "score", name, args.emb, "--fitted", args.fitted, "--quiet")
        whole = command(*base, "-o", f"{folder}/whole")
        truth = scores(Path(folder, "whole"))
        rows = [_row(args, share, base, folder, truth, whole.cpu) for share in args.shares]
    title = f"{name}: {len(truth):,} documents; all of them took {whole.cpu:.1f} s of CPU time"
    table(title, ["share", "scored", "CPU, of all's", "best 1%", "best 5%", "wanted", "estimated"], rows)


def _row(
    args: argparse.Namespace, share: float, base: tuple[str, ...], folder: str, truth: np.ndarray, all_cpu: float
) -> list[str]:
    """Mean and standard deviation over the seeds."""
    more = ["--adaptive-clusters", str(args.clusters)] if args.clusters else []
    found = []
    for seed in range(args.seeds):
        out = Path(folder, f"{share}-{seed}")
        cost = command(*base, "--adaptive", "--adaptive-share", str(share), "--seed", str(seed), *more, "-o", out)
        there = np.isfinite(scores(out))
        best = [float(there[np.argsort(-truth)[: int(len(truth) * part)]].mean()) for part in (0.01, 0.05, share / 2)]
        found.append([float(there.mean()), cost.cpu / all_cpu, *best, estimate(out)])
    return [f"{share:.0%}", *(_spread([values[place] for values in found]) for place in range(len(found[0])))]


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1%} ± {statistics.pstdev(values):.1%}"


def scores(out: Path) -> np.ndarray:
    """The first column of a folder of score files, lowest for none in the whole run."""
    files = [ScoreFile(str(path)) for path in sorted(out.rglob("*.dvsel.parquet"))]
    return np.concatenate([rows.score[:, 0] for file in files for rows in file.rows(())])


def estimate(out: Path) -> float:
    """What the summary says of the wanted documents."""
    (line,) = [line for line in json.loads((out / REPORT).read_text())["notes"] if "estimated" in line]
    return float(re.findall(r"estimated ([\d.]+)%", line)[0]) / 100


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("emb")
    parser.add_argument("--fitted", required=True)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.25, 0.5])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clusters", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
