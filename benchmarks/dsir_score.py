"""DSIR from a plain JSONL file to a score file, on one core: dvsel beside the reference package.

    python benchmarks/dsir_score.py [--pool FILE ...] [--megabytes 256] [--reference-megabytes 2] [--repeats 5]

dvsel runs twice in each round: as a command, with all of its start, and inside a process that has started, as the
reference does. Both are given the same fitted weights. The reference (`data-selection`, one process) needs
minutes for a large file, so it scores documents drawn from it at even steps; what is compared is bytes a second.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path

import numpy as np
from corpora import Corpus, corpus, parser_of
from data_selection import HashedNgramDSIR
from measure import DVSEL, Cost, alternate, command, here, machine, ratio, spread, table

from dvsel.commands.score import score
from dvsel.runs import fitted_files
from dvsel.runs.requests import Execution, ScoreRun, Scoring


def main() -> None:
    parser = parser_of(__doc__, repeats=5)
    parser.add_argument("--megabytes", type=float, default=256)
    parser.add_argument("--reference-megabytes", type=float, default=2)
    options = parser.parse_args()
    with corpus(options) as documents:
        compare(documents, int(options.megabytes * 1e6), int(options.reference_megabytes * 1e6), options.repeats)


def compare(documents: Corpus, size: int, reference_size: int, repeats: int) -> None:
    """Score, and print rates and their ratios."""
    shard, part = documents.write("pool.jsonl", size), documents.sample("part.jsonl", reference_size)
    fitted, output = documents.fit(shard), documents.folder / "scores"
    reference = reference_scorer(fitted, part, documents.folder / "reference")
    run = ScoreRun(pool=(str(shard),), scoring=Scoring(fitted=str(fitted)), output=str(output))

    def as_command() -> Cost:
        shutil.rmtree(output, ignore_errors=True)
        return command(*DVSEL, "score", "dsir", shard, "--fitted", fitted, "--workers", "1", "-o", output, "--quiet")

    def inside() -> Cost:
        shutil.rmtree(output, ignore_errors=True)
        return here(lambda: score(run, Execution(workers=1)))

    def other() -> Cost:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
            return here(reference.compute_importance_weights)

    inside()
    jobs = {"reference": other, "dvsel, started": inside, "dvsel, the command": as_command}
    sizes = dict(zip(jobs, (part.stat().st_size, shard.stat().st_size, shard.stat().st_size), strict=True))
    rounds = alternate(jobs, repeats)
    print(machine())
    table(
        f"DSIR from JSONL to score files, one core; {repeats} rounds, min / median / max",
        ["", "MB", "MB/s of CPU time", "times the reference, CPU", "times the reference, wall"],
        [
            [
                name,
                f"{sizes[name] / 1e6:.1f}",
                spread((sizes[name] / 1e6 / cost.cpu for cost in rounds[name]), 1),
                *(
                    spread(ratio(rounds, "reference", name, clock, sizes[name] / sizes["reference"]), 1)
                    for clock in ("cpu", "wall")
                ),
            ]
            for name in jobs
        ],
    )


def reference_scorer(fitted: Path, shard: Path, cache: Path) -> HashedNgramDSIR:
    """The reference package with dvsel's weights. Its hash is another, so its scores differ; its work does not."""
    dsir = HashedNgramDSIR([str(shard)], [str(shard)], str(cache), num_proc=1)
    dsir.log_diff = fitted_files.load(str(fitted))[0].arrays["log_ratio"][0].astype(np.float64)
    return dsir


if __name__ == "__main__":
    main()
