"""The most memory that scoring holds, for a small and a large shard.

    python benchmarks/memory.py [--pool FILE ...] [--megabytes 100 2000] [--workers 1]

Each line is one `dvsel score dsir` over one shard: plain and zstd, with the fit included (--target) and with a
fitted file (--fitted). Memory is that of the whole tree of processes, looked at a hundred times a second. Own is what
they hold themselves; resident counts the pages of libraries and other files that they map too.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from corpora import Corpus, corpus, parser_of
from measure import DVSEL, Cost, command, machine, table


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[100, 2000])
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with corpus(options) as documents:
        rows = [
            row
            for suffix in ("jsonl", "jsonl.zst")
            for size in options.megabytes
            for row in peaks(documents, f"{suffix.replace('.', '-')}-{size:.0f}/pool.{suffix}", size, options.workers)
        ]
        print(machine())
        table(
            f"peak memory of scoring one shard, {options.workers} worker(s)",
            ["shard", "MB of JSON", "MB stored", "run", "wall s", "CPU s", "own MB", "resident MB"],
            rows,
        )


def peaks(documents: Corpus, name: str, megabytes: float, workers: int) -> list[list[str]]:
    """A line for each way to score a shard of this name and size; the shard is gone afterwards."""
    shard = documents.write(name, int(megabytes * 1e6))
    stored = shard.stat().st_size / 1e6
    fitted = documents.folder / "dsir.fitted"
    if not fitted.exists():
        fitted = documents.fit(shard)
    ways: dict[str, tuple[str | Path, str | Path]] = {
        "with the fit": ("--target", documents.target),
        "--fitted": ("--fitted", fitted),
    }
    rows = []
    for way, flags in ways.items():
        cost = score(documents, shard, workers, flags)
        rows.append(
            ["zstd" if shard.suffix == ".zst" else "plain", f"{megabytes:,.0f}", f"{stored:,.0f}", way,
             f"{cost.wall:.1f}", f"{cost.cpu:.1f}", f"{cost.peak / 1e6:,.0f}", f"{cost.resident / 1e6:,.0f}"]
        )  # fmt: skip
    shard.unlink()
    return rows


def score(documents: Corpus, shard: Path, workers: int, flags: tuple[str | Path, str | Path]) -> Cost:
    """One run into an empty folder."""
    output = documents.folder / "scores"
    shutil.rmtree(output, ignore_errors=True)
    return command(*DVSEL, "score", "dsir", shard, *flags, "--workers", str(workers), "-o", output, "--quiet")


if __name__ == "__main__":
    main()
