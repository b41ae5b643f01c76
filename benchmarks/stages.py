"""How near scoring comes to the bound that its own stages set, and what a second worker adds.

    python benchmarks/stages.py [--pool FILE ...] [--megabytes 256] [--repeats 5] [--two-megabytes 1000 4000]

One core: each stage runs alone on the same documents, block by block as scoring cuts them, and then the whole in one
process that has started: a shard in, a score file out. The bound is the sum of reading, decompressing, extracting and
the kernel; the other stages are shown for what they cost beyond it.

Two workers beside one: the command, on twelve shards and on one plain file, which is split by byte ranges. A run begins
with a start of about two seconds that more workers do not shorten, so two sizes are scored, and the time that the
larger one adds is compared too: that is the ratio of a long run. It is wall time that counts here: other
work on the machine's cores spoils it, which the load in the machine's line shows.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import xxhash
import zstandard
from corpora import Corpus, corpus, parser_of
from isal import igzip
from measure import DVSEL, Cost, alternate, command, here, machine, ratio, spread, table

from dvsel.commands.score import score
from dvsel.documents.columns import Batch
from dvsel.documents.hashing import combine, hash_rows
from dvsel.documents.tokens import BUILT_IN
from dvsel.runs import fitted_files
from dvsel.runs.requests import Execution, ScoreRun, Scoring
from dvsel.score_files.find import SUFFIX
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.writer import ScoreFileWriter
from dvsel.shards.expand import expand
from dvsel.shards.extract import Extracted, extract, find_lines
from dvsel.shards.lines import BLOCK, LineReader, Lines

BOUND = ("read", "decompress", "extract", "kernel")
SHARDS = 12


def main() -> None:
    parser = parser_of(__doc__, repeats=5)
    parser.add_argument("--megabytes", type=float, default=256)
    parser.add_argument("--two-megabytes", type=float, nargs=2, default=[1000, 4000], metavar=("SMALL", "LARGE"))
    options = parser.parse_args()
    with corpus(options) as documents:
        print(machine())
        for suffix in ("", ".gz", ".zst"):
            shard = documents.write(f"pool.jsonl{suffix}", int(options.megabytes * 1e6))
            against_bound(documents, shard, options.repeats)
            shard.unlink()
        for many in (True, False):
            two_workers(documents, options.two_megabytes, many, options.repeats)


class Stages:
    """The stages of scoring a shard, each on what the one before gave it."""

    def __init__(self, path: Path, fitted: Path, output: Path) -> None:
        self.shard = expand([str(path)])[0]
        self.fitted = fitted_files.load(str(fitted))[0]
        self.paths = ["text", "id", "domain"]
        self.output = output
        self.run = ScoreRun(pool=(str(path),), scoring=Scoring(fitted=str(fitted)), output=str(output))
        self.whole()
        self.scored = ScoreFile(f"{output}/{self.shard.name}{SUFFIX}")
        self.rows = list(self.scored.rows())
        self.stored = path.read_bytes()
        with LineReader(self.shard) as reader:
            self.blocks = [dataclasses.replace(lines, data=lines.data.copy()) for lines in reader]
        self.found = [self.extract(lines) for lines in self.blocks]

    def jobs(self) -> dict[str, Callable[[], Cost]]:
        """Each stage by name, in order, and the whole."""
        stages: dict[str, Callable[[], object]] = {
            "read": self.read,
            "decompress": self.decompress,
            "extract": each(self.extract, self.blocks),
            "kernel": each(self.kernel, self.found),
            "digest": self.digest,
            "lines": each(self.lines, self.blocks),
            "hashes": each(self.hashes, self.found),
            "tokens": each(self.tokens, self.found),
            "write": self.write,
            "whole": self.whole,
        }
        return {name: functools.partial(here, stage) for name, stage in stages.items()}

    def read(self) -> None:
        """The stored bytes, into one buffer."""
        buffer = bytearray(BLOCK)
        with Path(self.shard.url).open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    def decompress(self) -> None:
        """Stored bytes that are in memory, into one buffer; nothing for a plain shard."""
        if not self.shard.compression:
            return
        stored, buffer = io.BytesIO(self.stored), bytearray(BLOCK)
        stream: Any = (
            zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True)
            if self.shard.compression == "zstd"
            else igzip.IGzipFile(fileobj=stored)
        )
        while stream.readinto(buffer):
            pass

    def extract(self, lines: Lines) -> Extracted:
        """The wanted fields."""
        return extract(lines.data, lines.starts, lines.ends, self.paths)

    def kernel(self, found: Extracted) -> object:
        """The scores."""
        return self.fitted.score(Batch(found.columns["text"]))

    def digest(self) -> str:
        """The hash of the stored bytes."""
        return xxhash.xxh3_128_hexdigest(self.stored)

    def lines(self, lines: Lines) -> object:
        """Where lines begin and end."""
        return find_lines(lines.data, 0, int(lines.ends[-1]) + 1)

    def hashes(self, found: Extracted) -> object:
        """Of each text, and of text and id."""
        return combine(hash_rows(found.columns["text"]), hash_rows(found.columns["id"]))

    def tokens(self, found: Extracted) -> object:
        """The estimate."""
        return BUILT_IN.count(found.columns["text"], None)

    def write(self) -> None:
        """The score file, its rows at hand."""
        with ScoreFileWriter(str(self.output) + SUFFIX, self.scored.header) as writer:
            for rows in self.rows:
                writer.append(rows, {})
            writer.finish("")

    def whole(self) -> None:
        """All of it, as `dvsel score` does it once it has started."""
        shutil.rmtree(self.output, ignore_errors=True)
        score(self.run, Execution(workers=1))


Item = TypeVar("Item")


def each(stage: Callable[[Item], object], items: Sequence[Item]) -> Callable[[], None]:
    """The stage on one item after the other; no result is kept."""

    def work() -> None:
        for item in items:
            stage(item)

    return work


def against_bound(documents: Corpus, shard: Path, repeats: int) -> None:
    """Print what each stage takes, and the bound as a share of the whole."""
    stages = Stages(shard, documents.fit(shard), documents.folder / "scores")
    rounds = alternate(stages.jobs(), repeats)
    rounds["bound"] = summed(rounds, BOUND)
    rounds["all stages"] = summed(rounds, [name for name in rounds if name not in ("whole", "bound")])
    size = sum(int(lines.ends[-1]) for lines in stages.blocks) / 1e6
    table(
        f"{stages.shard.compression or 'plain'}, {size:.0f} MB of JSON, one core; {repeats} rounds, min / median / max",
        ["", "CPU ms", "wall ms", "% of the whole, CPU", "% of the whole, wall"],
        [
            [
                name + (" *" if name in BOUND else ""),
                *(spread((1e3 * getattr(cost, clock) for cost in costs), 0) for clock in ("cpu", "wall")),
                *(spread(ratio(rounds, name, "whole", clock, 100), 1) for clock in ("cpu", "wall")),
            ]
            for name, costs in rounds.items()
        ],
    )


def summed(rounds: Mapping[str, Sequence[Cost]], names: Sequence[str]) -> list[Cost]:
    """The cost of several stages together, by round."""
    return [sum(costs, Cost(0, 0)) for costs in zip(*(rounds[name] for name in names), strict=True)]


def two_workers(documents: Corpus, sizes: Sequence[float], many: bool, repeats: int) -> None:
    """Print what the command takes with one and with two workers, and what the larger pool adds."""
    fitted = documents.fit(documents.write("sample.jsonl", 1 << 24))
    jobs = {}
    for name, size in zip(("small", "large"), sizes, strict=True):
        pool = write_pool(documents, name, int(size * 1e6), SHARDS if many else 1)
        for workers in (1, 2):
            jobs[f"{name}, {workers}"] = functools.partial(score_with, documents.folder, pool, fitted, workers)
    rounds = alternate(jobs, repeats)
    for workers in (1, 2):
        pairs = zip(rounds[f"large, {workers}"], rounds[f"small, {workers}"], strict=True)
        rounds[f"added, {workers}"] = [Cost(one.wall - other.wall, one.cpu - other.cpu) for one, other in pairs]
    small, large = (f"{size:,.0f} MB" for size in sizes)
    labels = {"small": small, "large": large, "added": f"what {large} takes beyond {small}"}
    table(
        f"{f'{SHARDS} shards' if many else 'one plain file'}; {repeats} rounds, min / median / max",
        ["", "wall s, 1 worker", "wall s, 2 workers", "times faster", "CPU of 2 over CPU of 1"],
        [
            [
                label,
                *(spread(cost.wall for cost in rounds[f"{name}, {workers}"]) for workers in (1, 2)),
                spread(ratio(rounds, f"{name}, 1", f"{name}, 2", "wall")),
                spread(ratio(rounds, f"{name}, 2", f"{name}, 1", "cpu")),
            ]
            for name, label in labels.items()
        ],
    )
    for name in labels:
        shutil.rmtree(documents.folder / name, ignore_errors=True)


def write_pool(documents: Corpus, name: str, size: int, shards: int) -> Path:
    """A folder with this many shards of equal size."""
    for number in range(shards):
        documents.write(f"{name}/{number:02}.jsonl", size // shards)
    return documents.folder / name


def score_with(folder: Path, pool: Path, fitted: Path, workers: int) -> Cost:
    """The command, into an empty folder."""
    output = folder / "scores"
    shutil.rmtree(output, ignore_errors=True)
    return command(*DVSEL, "score", "dsir", pool, "--fitted", fitted, "-w", str(workers), "-o", output, "--quiet")


if __name__ == "__main__":
    main()
