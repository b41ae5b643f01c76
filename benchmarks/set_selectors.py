"""Selectors that see a set of vectors: dvsel's parts beside scikit-learn, faiss, submodlib and numpy, on one core.

    python benchmarks/set_selectors.py [--model FOLDER [--pool FILE ...] | --vectors FILE.npy] [--rows 20000]
        [--repeats 3]

With --model the documents of the pool are embedded; --vectors takes ready ones; else they are random, a mixture of
directions. Needs scikit-learn, faiss-cpu and submodlib-py.

- neighbours: 10 of each of a fifth of the vectors among all; the peers give the same rows.
- k-means: the sum of squared distances that is reached, and seconds.
- facility location: a tenth of 2,000 vectors; f of the set, and seconds, with the similarities in both.
- cells: f of a twentieth of all vectors, by the selector `coverage`, by greedy over the whole, and in random parts.
- duplicates: what is dropped, how much of that has no kept neighbour, and seconds beside the whole matrix.
- round-robin: 4 picks for each of 100 queries from heaps of 64, beside a sort of every column.

Runs alternate and CPU time is taken.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import submodlib
import torch
from corpora import corpus, parser_of
from measure import Cost, alternate, here, machine, ratio, spread, table
from sklearn.cluster import KMeans

from dvsel.embeddings import EmbedderOptions
from dvsel.embeddings.clusters import assign, fit_centres
from dvsel.embeddings.duplicates import semantic_duplicates
from dvsel.embeddings.facility import greedy, value
from dvsel.embeddings.neighbours import nearest, unit
from dvsel.embeddings.partition import ROWS
from dvsel.embeddings.round_robin_heaps import Heaps
from dvsel.interface.candidates import Part
from dvsel.selectors.coverage import Coverage

Floats = npt.NDArray[np.float32]

WIDTH, DIRECTIONS, SPREAD = 384, 500, 1.5  # of the random vectors
NEIGHBOURS = 10
FACILITIES, SHARE = 2000, 0.1
CELLS_SHARE = 20  # one vector in so many is picked
THRESHOLDS = (0.9, 0.8, 0.7)
QUERIES, PICKS, HEAP, BATCH = 100, 4, 64, 4096


def main() -> None:
    parser = parser_of(__doc__, repeats=3)
    parser.add_argument("--model", default="", help="sentence encoder that embeds the pool")
    parser.add_argument("--vectors", default="", help="ready vectors, a .npy file")
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    warnings.simplefilter("ignore")  # those of submodlib and scikit-learn
    vectors = shuffled(options)
    print(machine())
    print(f"{len(vectors):,} vectors of {vectors.shape[1]} numbers; {options.repeats} rounds, min / median / max")
    for part in (neighbours, clusters, facilities, cells, duplicates, round_robin):
        part(vectors, options.repeats)


def shuffled(options: argparse.Namespace) -> Floats:
    """Unit vectors in random order, float32 (rows, width)."""
    if options.vectors:
        vectors = unit(np.load(options.vectors))
    elif options.model:
        from dvsel.embeddings.encoder import Embedder

        with corpus(options) as documents:
            texts = [document["text"] for document in documents.documents[: options.rows]]
        vectors = unit(Embedder(EmbedderOptions(model=options.model)).embed(texts))
    else:
        vectors = mixture(options.rows)
    vectors = vectors[~np.isnan(vectors).any(axis=1)]
    return np.ascontiguousarray(np.random.default_rng(0).permutation(vectors)[: options.rows])


def mixture(rows: int) -> Floats:
    generator = np.random.default_rng(0)
    directions = generator.normal(size=(DIRECTIONS, WIDTH))
    which = generator.choice(DIRECTIONS, rows, p=generator.dirichlet(np.ones(DIRECTIONS)))
    noise = generator.uniform(0, SPREAD, (rows, 1)) * generator.normal(size=(rows, WIDTH))
    return unit(directions[which] + noise)


def compare(
    title: str,
    jobs: Mapping[str, Callable[[], Any]],
    repeats: int,
    tell: Mapping[str, Callable[[Any], str]],
) -> None:
    """Time the jobs in turn, the first of which is dvsel's; print their costs and what is to be told of their results.

    The first run of each, which loads kernels, is not timed.
    """
    results = {name: quietly(job) for name, job in jobs.items()}
    rounds = alternate({name: partial(cost, job) for name, job in jobs.items()}, repeats)
    first = next(iter(jobs))
    table(
        title,
        ["", *tell, "CPU s", "times slower"],
        [
            [
                name,
                *(words(results[name]) for words in tell.values()),
                spread(one.cpu for one in rounds[name]),
                spread(ratio(rounds, name, first, "cpu"), 1),
            ]
            for name in jobs
        ],
    )


def cost(job: Callable[[], Any]) -> Cost:
    return here(lambda: quietly(job))


def quietly(job: Callable[[], Any]) -> Any:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return job()


def neighbours(vectors: Floats, repeats: int) -> None:
    queries = vectors[: len(vectors) // 5]
    expected = nearest(queries, vectors, NEIGHBOURS)[0]

    def by_faiss() -> npt.NDArray[np.int64]:
        flat = faiss.IndexFlatIP(vectors.shape[1])
        flat.add(vectors)
        found: npt.NDArray[np.int64] = flat.search(queries, NEIGHBOURS)[1]
        return found

    def by_torch() -> npt.NDArray[np.int64]:
        product = torch.from_numpy(queries) @ torch.from_numpy(vectors).T
        return product.topk(NEIGHBOURS, dim=1).indices.numpy()

    compare(
        f"{NEIGHBOURS} neighbours of {len(queries):,} among {len(vectors):,}",
        {
            "dvsel": lambda: nearest(queries, vectors, NEIGHBOURS)[0],
            "faiss IndexFlatIP": by_faiss,
            "torch, one product": by_torch,
        },
        repeats,
        {"same rows": lambda found: f"{np.mean(found == expected):.4%}"},
    )


def clusters(vectors: Floats, repeats: int) -> None:
    count = min(max(len(vectors) // 100, 2), 256)

    def by_faiss(seed: int) -> Floats:
        made = faiss.Kmeans(vectors.shape[1], count, niter=25, seed=seed, max_points_per_centroid=10**9)
        made.train(vectors)
        assert made.centroids is not None
        centres: Floats = made.centroids
        return centres

    def by_scikit(seed: int) -> Floats:
        made = KMeans(count, n_init=1, max_iter=25, random_state=seed).fit(vectors)
        centres: Floats = made.cluster_centers_
        return centres

    def reached(centres: Floats) -> str:
        return f"{assign(vectors, centres)[1].sum(dtype=np.float64):,.0f}"

    compare(
        f"k-means, {count} centres, 25 steps",
        {
            f"{name}, seed {seed}": partial(fit, seed)
            for seed in range(2)
            for name, fit in (
                ("dvsel", lambda seed: fit_centres(vectors, count, seed)),
                ("scikit-learn", by_scikit),
                ("faiss", by_faiss),
            )
        },
        repeats,
        {"squared distances": reached},
    )


def facilities(vectors: Floats, repeats: int) -> None:
    rows = vectors[:FACILITIES]
    budget = int(len(rows) * SHARE)
    costs = np.ones(len(rows), np.int64)

    def by_submodlib(optimizer: str) -> npt.NDArray[np.int64]:
        similar = np.maximum(rows @ rows.T, 0)
        function = submodlib.FacilityLocationFunction(n=len(rows), mode="dense", separate_rep=False, sijs=similar)
        found = function.maximize(budget=budget, optimizer=optimizer, epsilon=0.01, show_progress=False)
        return np.array([row for row, _ in found])

    compare(
        f"facility location, {budget:,} of {len(rows):,}",
        {
            "dvsel, exact": lambda: greedy(rows, costs, budget, 0, exact=True).order,
            "dvsel, stochastic": lambda: greedy(rows, costs, budget, 0).order,
            **{
                f"submodlib {name}": partial(by_submodlib, name)
                for name in ("NaiveGreedy", "LazyGreedy", "StochasticGreedy", "LazierThanLazyGreedy")
            },
        },
        repeats,
        {"f": lambda chosen: f"{value(rows, chosen):,.2f}"},
    )


@dataclass
class _InMemory:
    """`Candidates` over vectors, a document each."""

    part: Part
    limit: int | None
    scratch: Path
    groups: tuple[str, ...] = ("",)
    seed: int = 0

    def __post_init__(self) -> None:
        self.count = self.docs = self.cost = len(self.part)
        self.keys = np.full(self.count, np.nan, np.float32)

    def parts(self, vectors: bool = False) -> Iterator[Part]:  # noqa: ARG002
        yield self.part

    def embedded(self, patterns: Sequence[str]) -> Floats:
        raise NotImplementedError


def cells(vectors: Floats, repeats: int) -> None:  # noqa: ARG001
    count, generator = len(vectors) // CELLS_SHARE, np.random.default_rng(0)
    ones, tie = np.ones(len(vectors), np.int64), generator.integers(1 << 63, size=len(vectors)).astype(np.uint64)
    score, uniform = np.zeros((len(vectors), 1), np.float32), generator.uniform(size=len(vectors))
    with tempfile.TemporaryDirectory() as scratch:
        made = _InMemory(Part(0, score, tie, uniform, ones, ones == 1, vectors), count, Path(scratch))
        Coverage().rank(made)
    parts = np.array_split(generator.permutation(len(vectors)), len(vectors) // ROWS)
    picked = {
        "cells of like vectors": np.argsort(-np.nan_to_num(made.keys, nan=-np.inf), kind="stable")[:count],
        "the whole": greedy(vectors, ones, count, 0, exact=True).order,
        "random parts": np.concatenate(
            [part[greedy(vectors[part], ones[part], count // len(parts), 0, exact=True).order] for part in parts]
        ),
        "chance": generator.choice(len(vectors), count, replace=False),
    }
    rows = [[name, f"{len(rows):,}", f"{value(vectors, rows) / len(vectors):.4f}"] for name, rows in picked.items()]
    table(f"cells: {count:,} of {len(vectors):,}", ["", "picked", "f, by document"], rows)


def duplicates(vectors: Floats, repeats: int) -> None:
    order = np.arange(len(vectors))

    def whole_matrix(threshold: float) -> npt.NDArray[np.bool_]:
        same: npt.NDArray[np.bool_] = np.tril(vectors @ vectors.T, -1).max(axis=1) >= threshold
        return same

    def lonely(dropped: npt.NDArray[np.bool_], threshold: float) -> str:
        kept = np.flatnonzero(~dropped)
        gone = np.flatnonzero(dropped)
        beside = nearest(vectors[gone], vectors[kept], 1)[1][:, 0] >= np.float32(threshold)
        return f"{1 - beside.mean():.1%}" if len(gone) else "-"

    for threshold in THRESHOLDS:
        compare(
            f"duplicates, cosine {threshold} and above",
            {
                "dvsel, against kept": partial(semantic_duplicates, vectors, order, threshold),
                "dvsel, against all": partial(semantic_duplicates, vectors, order, threshold, "all"),
                "numpy, against all": partial(whole_matrix, threshold),
            },
            repeats,
            {
                "dropped": lambda dropped: f"{dropped.mean():.1%}",
                "without a kept neighbour": partial(lonely, threshold=threshold),
            },
        )


def round_robin(vectors: Floats, repeats: int) -> None:
    queries = vectors[:QUERIES]
    limit = PICKS * len(queries)
    tie, costs = np.zeros(len(vectors), np.uint64), np.ones(len(vectors), np.int64)
    score = vectors @ queries.T

    def by_heaps(size: int) -> npt.NDArray[np.int64]:
        made = Heaps(len(queries), size)
        for first in range(0, len(vectors), BATCH):
            rows = slice(first, first + BATCH)
            made.add(score[rows], tie[rows], first, costs[rows])
        return made.turns(limit).position

    def by_sorting() -> npt.NDArray[np.int64]:
        ranked = np.argsort(-score, axis=0, kind="stable")
        taken = np.zeros(len(vectors), bool)
        picked: list[int] = []
        while len(picked) < limit:
            for column in ranked.T:
                best = column[np.argmin(taken[column])]
                taken[best] = True
                picked.append(best)
        return np.array(picked[:limit])

    expected = by_sorting()
    compare(
        f"round-robin, {PICKS} picks for each of {len(queries)} queries, the products not counted",
        {
            f"dvsel, heaps of {HEAP}": lambda: by_heaps(HEAP),
            f"dvsel, heaps of {PICKS}": lambda: by_heaps(PICKS),
            "a sort of each column": by_sorting,
        },
        repeats,
        {"same set": lambda found: f"{len(np.intersect1d(found, expected)) / limit:.1%}"},
    )


if __name__ == "__main__":
    main()
