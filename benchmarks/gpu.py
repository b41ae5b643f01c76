"""The GPU path proved and measured by one command, in the order of worth; a run that is cut off keeps what it has.

    python -m benchmarks.gpu [--minutes 30] [--steps NAME ...] [--output gpu-results] [--peak TFLOPS]
    python -m benchmarks.gpu --cpu    # a rehearsal on tiny models: whether the code of all steps runs

Needs a checkout, Python 3.11 or later, torch, transformers and the packages that dvsel itself needs, and nothing from a
network. peft, accelerate and sentence-transformers are used where they are there, and so are the peers of
gradients_peers.py; what is left out for want of a package is said.

    correctness  the checks of tests/gpu: the GPU beside the CPU in float64, memory, processes
    kernel       gradient scoring, 125M to 8B: tokens a second, share of the bf16 peak, memory, beside a training step
    losses       perplexity beside a plain loop of transformers over length-sorted batches
    embeddings   vectors beside `encode` of sentence-transformers, at the best of its batch sizes
    end-to-end   `dvsel score influence` from JSONL, as a share of what its kernel alone does
    fit          the factors of K-FAC and EK-FAC, beside a training step on as many documents

Each step yields its results one by one, the most wanted first. Time is divided evenly between the steps that wait; what
one leaves goes to the others, and steps that had to stop go on where they were. After each result the folder has all so
far as results.json and as results.md, rows of docs/performance.md under the device's name. A result that is begun is
brought to its end, so a run may take a minute or two longer than it was given.

Exit code 1 where a check failed or a step broke.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpu_steps import Bench

ROOT = Path(__file__).resolve().parents[1]
PLACES = [ROOT / "benchmarks", ROOT, ROOT / "tests", ROOT / "tests" / "gradients", ROOT / "tests" / "gpu"]
STEPS = ("correctness", "kernel", "losses", "embeddings", "end-to-end", "fit")
FAILED = "FAILED"
_WIDEST = 72  # characters of a cell that is printed last; the files have all of it


@dataclass(frozen=True)
class Result:
    """One measurement or check of a step. figures: what was found, by the head of its column."""

    step: str
    name: str
    figures: Mapping[str, str]
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """True where a check failed or a measurement broke."""
        return FAILED in self.figures.values()


@dataclass
class Findings:
    """All results so far, and the folder that has them."""

    folder: Path
    machine: str
    results: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Add a result, write all again, and print it."""
        self.results.append(result)
        self.write()
        said = ", ".join(f"{head} {value}" for head, value in result.figures.items() if value)
        print(f"[{result.seconds:.0f} s] {result.step}: {result.name}: {said}", flush=True)

    def write(self) -> None:
        """Put both files in the place of those before, whole."""
        results = [asdict(one) for one in self.results]
        _replace(self.folder / "results.json", json.dumps({"machine": self.machine, "results": results}, indent=1))
        _replace(self.folder / "results.md", f"{self.machine}\n\n" + "\n".join(map(self.markdown, self.steps())))

    def steps(self) -> list[str]:
        """The steps that have results, in order."""
        return [step for step in STEPS if any(one.step == step for one in self.results)]

    def of(self, step: str) -> tuple[list[str], list[list[str]]]:
        """The heads and rows of a step's table."""
        mine = [one for one in self.results if one.step == step]
        heads = list(dict.fromkeys(head for one in mine for head in one.figures))
        return heads, [[one.name, *(one.figures.get(head, "") for head in heads)] for one in mine]

    def markdown(self, step: str) -> str:
        """A step's table in Markdown."""
        heads, rows = self.of(step)
        lines = [[step, *heads], ["---"] * (len(heads) + 1), *rows]
        return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def _replace(path: Path, text: str) -> None:
    written = path.with_suffix(f"{path.suffix}.new")
    written.write_text(text, encoding="utf-8")
    written.replace(path)


Step = Iterator[Result]


def divide(steps: Mapping[str, Step], seconds: float, add: Callable[[Result], None]) -> list[str]:
    """Draw results out of the steps in turn, each for an even part of the time that is left; the steps left unended.

    A step that breaks gives a failed result, and the others go on.
    """
    end, waiting = time.monotonic() + seconds, dict(steps)
    while waiting and time.monotonic() < end:
        for number, name in enumerate(names := list(waiting)):
            now = time.monotonic()
            if not _draw(name, waiting[name], now + (end - now) / (len(names) - number), add):
                del waiting[name]
    return list(waiting)


def _draw(name: str, step: Step, until: float, add: Callable[[Result], None]) -> bool:
    """Draw results up to a moment; returns True where there may be more."""
    while time.monotonic() < until:
        begin = time.monotonic()
        try:
            found = next(step, None)
        except Exception as error:  # the other steps are to run all the same
            traceback.print_exc()
            found = Result(name, "the step itself", {"result": FAILED, "evidence": f"{type(error).__name__}: {error}"})
            add(found)
            return False
        if found is None:
            return False
        add(Result(found.step, found.name, found.figures, time.monotonic() - begin))
    return True


def lacking() -> list[str]:
    """The packages that are not installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [re.match(r"[\w.-]+", one) for one in project["dependencies"]]
    return [name for name in ["torch", "transformers", *(one[0] for one in wanted if one)] if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def options_of(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="what all steps together may take")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, help="run these alone")
    parser.add_argument("--output", type=Path, default=Path("gpu-results"), help="folder for results")
    parser.add_argument("--peak", type=float, help="the device's dense bf16 peak, TFLOP/s, where it is not known here")
    parser.add_argument("--cpu", action="store_true", help="rehearse all steps on tiny models")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = options_of(argv)
    if absent := lacking():
        sys.exit(f"benchmarks.gpu: needs packages that are not installed: {', '.join(absent)}; pip install them first")
    sys.path[:0] = [str(place) for place in PLACES if str(place) not in sys.path]
    import gpu_steps

    with gpu_steps.bench(options.cpu, options.peak) as bench:
        return run(bench, options, gpu_steps.STEPS)


def run(bench: Bench, options: argparse.Namespace, steps: Mapping[str, Callable[[Bench], Step]]) -> int:
    """Run the steps, and print all tables last."""
    from measure import table

    options.output.mkdir(parents=True, exist_ok=True)
    found = Findings(options.output, bench.machine)
    print(bench.machine, flush=True)
    left = list(options.steps)
    try:
        left = divide({name: steps[name](bench) for name in options.steps}, 60 * options.minutes, found.add)
    finally:
        for step in found.steps():
            heads, rows = found.of(step)
            table(step, ["", *heads], [[cell[:_WIDEST] for cell in row] for row in rows])
        if left:
            print(
                f"\nnot ended in {options.minutes:g} minutes: {', '.join(left)}; give more --minutes, or name --steps"
            )
        print(f"\n{bench.machine}\nin {options.output}: results.json, results.md")
    return int(any(one.failed for one in found.results))


if __name__ == "__main__":
    sys.exit(main())
