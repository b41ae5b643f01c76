"""DSIR's score of documents in memory: dvsel's kernel beside the reference package, on one core.

    python benchmarks/dsir_kernel.py [--pool FILE ...] [--megabytes 8] [--repeats 5]

Both score the same documents with as many buckets and n-grams; runs alternate, CPU time is taken. The reference
runs as its package installs (`featurizer` and `importance_estimator` for each document), and once more with
Python's `re` in place of NLTK's tokenizer, which from 3.10 on matches with a slower engine. Without --pool the
text is that of the Python installation: documentation topics and library sources.
"""

from __future__ import annotations

import argparse
import io
import json
import pydoc_data.topics
import re
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import zstandard
from data_selection import HashedNgramDSIR

from dvsel.documents.columns import Batch
from dvsel.scorers.dsir import DSIR, FittedDSIR

PASSES = 10
"""Runs of dvsel for one of the reference, so that both take long enough to be timed."""


def texts_of_python() -> Iterator[str]:
    """Documentation and sources of this Python, over and over."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    sources = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    return chain.from_iterable(repeat([*pydoc_data.topics.topics.values(), *sources]))


def texts_of_files(files: list[Path]) -> Iterator[str]:
    """The field `text` of each line of JSONL files, plain or zstd."""
    for file in files:
        with zstandard.open(file) if file.suffix == ".zst" else file.open("rb") as raw:
            yield from (json.loads(line)["text"] for line in io.TextIOWrapper(raw, "utf-8"))


def take(texts: Iterator[str], size: int) -> list[str]:
    """The first texts that together have `size` bytes, or all."""
    taken: list[str] = []
    for text in texts:
        size -= len(text.encode())
        if size < 0:
            break
        taken.append(text)
    return taken


def cpu_time(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def reference_scorer(fitted: FittedDSIR, folder: str) -> HashedNgramDSIR:
    dsir = HashedNgramDSIR(["pool"], ["target"], folder, num_proc=1)
    dsir.log_diff = fitted.arrays["log_ratio"][0].astype(np.float64)
    return dsir


def line(name: str, values: list[float], unit: str) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{name:<34} min {low:8.1f}  median {middle:8.1f}  max {high:8.1f}  {unit}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, nargs="+", default=[], help="JSONL files, plain or .zst")
    parser.add_argument("--megabytes", type=float, default=8.0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    source = texts_of_files(options.pool) if options.pool else texts_of_python()
    texts = take(source, int(options.megabytes * 1e6))
    batch = Batch.of(texts)
    megabytes = int(batch.text.offsets[-1]) / 1e6
    half = len(texts) // 2
    fitted = DSIR().fit([Batch.of(texts[:half])], {"target": [Batch.of(texts[half:])]})
    print(f"{len(texts)} documents, {megabytes:.1f} MB; Python {sys.version.split()[0]}", file=sys.stderr)

    def dvsel() -> None:
        for _ in range(PASSES):
            fitted.score(batch)

    with tempfile.TemporaryDirectory() as folder:
        as_installed, with_re = reference_scorer(fitted, folder), reference_scorer(fitted, folder)
    with_re.tokenizer = re.compile(r"\w+|[^\w\s]+").findall

    def reference(dsir: HashedNgramDSIR) -> list[float]:
        return [dsir.importance_estimator(dsir.featurizer(text)) for text in texts]

    dvsel()
    rates: dict[str, list[float]] = {"reference": [], "reference, with re": [], "dvsel": []}
    for _ in range(options.repeats):
        rates["reference"].append(megabytes / cpu_time(lambda: reference(as_installed)))
        rates["reference, with re"].append(megabytes / cpu_time(lambda: reference(with_re)))
        rates["dvsel"].append(PASSES * megabytes / cpu_time(dvsel))
    for name, values in rates.items():
        print(line(name, values, "MB/s"))
    for name in ("reference", "reference, with re"):
        ratios = [ours / theirs for ours, theirs in zip(rates["dvsel"], rates[name], strict=True)]
        print(line(f"dvsel / {name}", ratios, "times"))


if __name__ == "__main__":
    main()
