"""Selection on many rows of score files: dvsel's streamed cut beside reading the same files and sorting them.

    python benchmarks/select_rows.py [--rows 50000000] [--files 50] [--repeats 3] [--threads 1] [--folder FOLDER]

All start from the same score files, and end with the rows that a budget of 10% of the tokens keeps. A plan also
counts the kept documents by domain, a histogram and the overlap with top-k, and leaves its bits on disk. Two sorts
stand beside it:

- exact: keys and ties (hashes of the documents, so that the order of rows decides nothing), `np.lexsort`, running
  sum of tokens. Keeps the very rows that the plan keeps, which is checked.
- loose: `np.argsort` of the keys alone, running sum of tokens. Equal keys come as they lie.

The sorts read only the columns that they need. Each runs in a process of its own; what is timed begins when
kernels are loaded. Memory is that of the process, without the pages of the files that it maps; it is measured
at a tenth of the rows too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow.parquet as pq
from measure import Cost, alternate, command, here, machine, ratio, spread, table

from dvsel.budget import Budget
from dvsel.documents.columns import Status
from dvsel.documents.hashing import mix, uniform
from dvsel.documents.tokens import BUILT_IN
from dvsel.options import among
from dvsel.runs.requests import Reading
from dvsel.score_files.find import SUFFIX
from dvsel.score_files.header import Header, ReadingRecord, ShardIdentity
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import Rows
from dvsel.score_files.writer import ScoreFileWriter
from dvsel.selection.plan import Plan
from dvsel.selection.scored_pool import Pool
from dvsel.selectors import Selector
from dvsel.selectors.resample import Resample
from dvsel.selectors.topk import TopK
from dvsel.storage.places import Shard

SELECTORS: dict[str, Callable[[], Selector]] = {"topk": TopK, "resample": Resample}
SHARE = 0.1
_SEED = 0
_DOMAINS = [f"domain {number}" for number in range(20)]
_UNSCORED = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", help="where to make the folder of temporary files")
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "SCORES", "RESULT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        method, scores, result = options.one
        measure_one(method, scores, result, options.threads)
        return
    with tempfile.TemporaryDirectory(prefix="dvsel-bench-", dir=options.folder) as folder:
        compare(Path(folder), options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    """Generate, run in turn, print."""
    generator = np.random.default_rng(_SEED)
    few, many = folder / "few", folder / "many"
    write_score_files(few, options.rows // 10, max(options.files // 10, 1), generator)
    write_score_files(many, options.rows, options.files, generator)
    print(machine())
    for selector in SELECTORS:
        names = (f"plan {selector}", f"sort {selector}", f"loose sort {selector}")
        jobs = {name: lambda name=name: apart(name, many, folder, options.threads) for name in names}
        rounds = alternate(jobs, options.repeats)
        small = apart(names[0], few, folder, options.threads)
        table(
            f"{selector}, {options.rows:,} rows in {options.files} files, {options.threads} thread(s); "
            f"{options.repeats} rounds, min / median / max",
            ["", "CPU s", "wall s", "times faster, CPU", "times faster, wall", "peak MB"],
            [
                [
                    name,
                    *(spread(getattr(cost, clock) for cost in rounds[name]) for clock in ("cpu", "wall")),
                    *(spread(ratio(rounds, name, names[0], clock), 1) for clock in ("cpu", "wall")),
                    f"{max(cost.peak for cost in rounds[name]) / 1e6:,.0f}",
                ]
                for name in names
            ],
        )
        print(f"  {names[0]} of {options.rows // 10:,} rows: {small.cpu:.2f} s CPU, peak {small.peak / 1e6:,.0f} MB")


def write_score_files(folder: Path, rows: int, files: int, generator: np.random.Generator) -> None:
    """Score files as a pool of documents of about 600 tokens would leave them; some documents have no score."""
    folder.mkdir(parents=True)
    for number in range(files):
        shard = Shard(f"/pool/{number:05}.jsonl", f"{number:05}.jsonl", "jsonl", "", 0, "")
        header = Header(
            version="0",
            shard=ShardIdentity.of(shard),
            scorer="dsir",
            fingerprint="",
            groups=("",),
            shares=(1.0,),
            selector="resample",
            unscored="",
            reading=among(ReadingRecord, Reading()),
            tokens=BUILT_IN,
        )
        with ScoreFileWriter(str(folder / f"{number:05}{SUFFIX}"), header) as writer:
            writer.append(_rows(rows // files, generator), {})
            writer.finish("")


def _rows(count: int, generator: np.random.Generator) -> Rows:
    status = np.where(generator.random(count) < _UNSCORED, Status.UNSCORED, Status.SCORED).astype(np.uint8)
    score = generator.normal(-500, 300, count).astype(np.float32)
    score[status != Status.SCORED] = np.nan
    tokens = generator.lognormal(6, 1, count).astype(np.uint32)
    keys = generator.integers(0, 1 << 64, (2, count), np.uint64)
    domain = generator.integers(0, len(_DOMAINS), count, np.int32)
    return Rows(count, score[:, None], keys[0], keys[1], tokens, tokens * np.uint32(4), status, domain, _DOMAINS)


def apart(method: str, scores: Path, folder: Path, threads: int) -> Cost:
    """The cost of a method in a process of its own, as that process states it, and the process's peak."""
    result = folder / "result.json"
    argv = [sys.executable, __file__, "--threads", str(threads), "--one", method, str(scores), str(result)]
    peak = command(*argv).peak
    wall, cpu = orjson.loads(result.read_bytes())
    return Cost(wall, cpu, peak)


def measure_one(method: str, scores: str, result: str, threads: int) -> None:
    """Run one method over the score files, and write its cost; first load the kernels, and check what is kept."""
    way, _, name = method.rpartition(" ")
    files = sorted(str(path) for path in Path(scores).glob(f"*{SUFFIX}"))
    work = {"plan": plan, "sort": sort, "loose sort": loose_sort}[way]
    if way == "plan":
        with tempfile.TemporaryDirectory() as folder:
            _check(name, folder)
    cost = here(lambda: work(SELECTORS[name](), files, threads))
    Path(result).write_bytes(orjson.dumps([cost.wall, cost.cpu]))


def _check(name: str, folder: str) -> None:
    """Plan and exact sort keep the same number of rows of a small pool."""
    write_score_files(Path(folder) / "small", 10_000, 2, np.random.default_rng(1))
    files = sorted(str(path) for path in (Path(folder) / "small").glob("*"))
    assert plan(SELECTORS[name](), files, 1) == sort(SELECTORS[name](), files, 1)


def plan(selector: Selector, files: list[str], threads: int) -> int:
    """Rows that dvsel keeps."""
    with tempfile.TemporaryDirectory() as masks:
        pool = Pool.of([ScoreFile(file) for file in files])
        made = Plan.make(pool, selector, _SEED, Path(masks), Budget.parse(f"{SHARE:.0%}"), threads=threads)
        return sum(made.kept)


def sort(selector: Selector, files: list[str], threads: int) -> int:
    """Rows that the longest prefix of all rows by key, then tie, holds within the budget."""
    key, hashes, tokens = _read(selector, files, threads)
    order = np.lexsort((~mix(hashes, _SEED), -key))
    return _kept(order, key, tokens)


def loose_sort(selector: Selector, files: list[str], threads: int) -> int:
    """The same, equal keys in any order."""
    key, _, tokens = _read(selector, files, threads)
    return _kept(np.argsort(-key), key, tokens)


def _read(
    selector: Selector, files: list[str], threads: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
    columns = ["score", "key", "tokens"]
    with ThreadPoolExecutor(threads) as workers:
        tables = list(workers.map(lambda file: pq.read_table(file, columns=columns, use_threads=False), files))
    score, key, tokens = (np.concatenate([table.column(name).to_numpy() for table in tables]) for name in columns)
    noise = uniform(key, _SEED) if selector.noisy else np.broadcast_to(0.5, len(key))
    return selector.key(score, noise), key, tokens


def _kept(order: npt.NDArray[np.int64], key: npt.NDArray[np.float32], tokens: npt.NDArray[np.uint32]) -> int:
    """How many rows of the order fit the budget; those without a score, NaN, come last."""
    budget = int(SHARE * int(tokens[~np.isnan(key)].sum(dtype=np.int64)))
    return int(np.searchsorted(np.cumsum(tokens[order], dtype=np.int64), budget, side="right"))


if __name__ == "__main__":
    main()
