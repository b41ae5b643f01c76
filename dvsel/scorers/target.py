"""Distance to a target, by optimal transport between embeddings; other methods are limits of the same formula.

With target documents y_j of mass b_j, a cost c of two vectors and prices g, the score of a document x is -f(x),

    f(x) = -eps log sum_j b_j exp((g_j - c(x, y_j)) / eps).

- got-d: prices that transport a sample of the pool to the target, by Sinkhorn's algorithm (Kang et al. 2024, "Get more
  for less: Principled Data Selection for Warming Up Fine-Tuning in LLMs"). f is the first variation of the transport
  cost: how a little more of x in the pool changes it. A target's document that few of the pool are near has a high
  price.
- unbalanced: prices of transport that may leave some of the pool and of the target aside, at a price rho (Chizat et al.
  2018; Sejourne et al. 2019). The first variation is (rho + eps) (1 - exp(-f(x) / (rho + eps))), which ranks as f does.
- rds-max: no prices, eps to 0: the highest similarity to a target's document (RDS: Zhang et al. 2018; Ivison et al.
  2025, "Large-Scale Data Selection for Instruction Tuning").
- mean: no prices, eps to infinity: the mean similarity to the target's documents.

`dvsel.transport` says how it is computed. The fitted scorer holds the target's vectors, masses and prices, no model.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import Batch
from dvsel.documents.vectors import Maker
from dvsel.embeddings import EmbedderOptions
from dvsel.embeddings.vector_source import VectorSource
from dvsel.errors import Notice, UserError
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.options import option, under
from dvsel.schema import ArraySpec, Names, Schema
from dvsel.transport import COSTS

if TYPE_CHECKING:
    from dvsel.transport.potential import Potential

Rows = npt.NDArray[np.float32]

PRESETS = ("got-d", "unbalanced", "rds-max", "mean")
_PRICED = ("got-d", "unbalanced")
_EPS, _RHO = 0.25, 1.0  # standard deviations of the cost; docs/target.md compares other values


@dataclass(frozen=True)
class Target(EmbedderOptions, Scorer):
    """Prefer documents whose embeddings are near the target's (optimal transport, GOT-D; RDS).

    The score is minus the potential of the transport cost to the target: 0 is near, and lower is further away.
    """

    group: ClassVar[str] = "embeddings"
    takes_target: ClassVar[bool] = True
    usage: ClassVar[tuple[str, ...]] = ("--pool pool/ --target target.jsonl --model models/all-MiniLM-L6-v2",)
    uses_all_cores: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-4

    preset: str = option(
        "got-d",
        "got-d: prices by optimal transport from a sample of the pool; unbalanced: the same, where some may be left "
        "aside; rds-max: highest similarity; mean: mean similarity",
        choices=PRESETS,
    )
    cost: str = option(
        "cosine", "cosine: 1 - cosine of two vectors; squared: half their squared distance", choices=COSTS
    )
    eps: float = option(
        0.0,
        "temperature, in standard deviations of the cost between pool and target: one deviation nearer weighs "
        f"e^(1/eps) times as much; 0: {_EPS}",
        minimum=0,
        when=under("preset", *_PRICED),
    )
    rho: float = option(
        0.0,
        f"unbalanced: what leaving mass aside costs, in standard deviations of the cost; 0: {_RHO:g}",
        minimum=0,
        when=under("preset", "unbalanced"),
    )
    fit_documents: int = option(
        4000, "documents of the pool's sample that prices are found with", minimum=1, when=under("preset", *_PRICED)
    )
    target_documents: int = option(
        2000, "documents of each target that are used, chosen by a hash where it has more", minimum=1
    )
    marginal_error: float = option(
        1e-3,
        "share of the target's mass that prices may still send elsewhere",
        above=0,
        below=1,
        when=under("preset", *_PRICED),
    )
    max_steps: int = option(
        2000, "passes over all pairs in which prices are to be found", minimum=1, when=under("preset", *_PRICED)
    )

    @property
    def takes_pool(self) -> bool:
        """True where there are prices: these are of transport from the pool, whose costs give the scale of eps."""
        return self.preset in _PRICED

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> FittedTarget:
        """Fit the vectors, masses and prices of each target."""
        if not targets:
            raise UserError("target: no target; name one with --target FILE")
        source = VectorSource(self)
        sample = None
        if self.takes_pool:
            sample = self._usable(source.all_of(pool, self.fit_documents), "the pool's sample")
        sides, report = [], {}
        for name, batches in targets.items():
            place = f"target {name}"
            chosen, size = _lowest(batches, self.target_documents, place)
            side = self._side(source.of(chosen), sample, place)
            sides.append(side)
            report[name] = {"documents": size, "used": side.documents} | side.report
        fitted = FittedTarget(source.options(self), _arrays(sides), groups=list(targets))
        assert source.maker is not None
        fitted.report = {"embedder": dataclasses.asdict(source.maker), "targets": report}
        return fitted

    def _side(self, vectors: Rows, sample: Rows | None, place: str) -> _Side:
        """Fit one target. place: names it in messages."""
        usable = self._usable(vectors, place)
        distinct, counts = np.unique(usable, axis=0, return_counts=True)
        masses, prices = counts / len(usable), np.zeros(len(distinct), np.float32)
        report = {"without a vector": len(vectors) - len(usable), "distinct": len(distinct)}
        eps = math.inf if self.preset == "mean" else 0.0
        side = _Side(distinct, masses, prices, eps, len(usable), report)
        return side if sample is None else self._priced(side, sample, place)

    def _priced(self, side: _Side, sample: Rows, place: str) -> _Side:
        from dvsel.transport.cost import spread
        from dvsel.transport.potential import Potential
        from dvsel.transport.sinkhorn import solve

        deviation = spread(sample, side.vectors, side.masses, self.cost)
        if not deviation:
            raise UserError(
                f"{place}: is equally far from all of the pool's sample, so there is no scale for eps and nothing to "
                "rank; check the vectors, or pass --preset rds-max"
            )
        if len(side.vectors) == 1:
            _notice(f"{place}: is one document, or identical ones; prices say nothing, the score is minus the cost")
        eps, rho = (self.eps or _EPS) * deviation, (self.rho or _RHO) * deviation
        prices = solve(
            sample,
            side.vectors,
            np.ones(len(sample)),
            side.masses,
            self.cost,
            eps,
            self.marginal_error,
            self.max_steps,
            rho if self.preset == "unbalanced" else math.inf,
        )
        if not prices.converged:
            _notice(
                f"{place}: prices are not settled after {prices.steps} passes, at a marginal error of "
                f"{prices.marginal_error:.2g} instead of {self.marginal_error:g}; raise --max-steps, or --eps"
            )
        compared = Potential(side.vectors, side.masses, prices.g, self.cost, eps).compared(sample)
        report = side.report | {
            "pool documents": len(sample),
            "deviation of cost": round(deviation, 6),
            "eps in cost": round(eps, 6),
            "compared with": round(float(compared.mean()), 2),
            "marginal error": float(f"{prices.marginal_error:.2g}"),
            "passes": prices.steps,
        }
        return dataclasses.replace(side, prices=prices.g, eps=eps, report=report)

    def _usable(self, vectors: Rows, place: str) -> Rows:
        """Return the vectors that have a cost."""
        usable = np.isfinite(vectors).all(1)
        if self.cost == "cosine":
            usable &= vectors.any(1)
        if not usable.any():
            raise UserError(f"{place}: no document has a vector that can be used; check its texts, or its embeddings")
        return vectors[usable]


@dataclass(frozen=True)
class _Side:
    """One target in the formula.

    vectors: float32 (m, width), no two alike. masses: float64 (m,). prices: float32 (m,). eps: in units of cost.
    documents: how many the vectors stand for. report: by what to call it.
    """

    vectors: Rows
    masses: npt.NDArray[np.float64]
    prices: Rows
    eps: float
    documents: int
    report: dict[str, Any]


def _arrays(sides: Sequence[_Side]) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of `FittedTarget`."""
    arrays = {
        f"{key}.{number}": getattr(side, key)
        for number, side in enumerate(sides)
        for key in ("vectors", "masses", "prices")
    }
    return arrays | {
        "eps": np.array([side.eps for side in sides]),
        "documents": np.array([side.documents for side in sides], np.int64),
    }


class FittedTarget(Fitted):
    """A fitted target scorer.

    arrays: of target K vectors.K float32 (m, width), masses.K float64 (m,) and prices.K float32 (m,); eps float64
    (targets,), in units of cost; documents int64 (targets,), how many the vectors stand for.
    """

    scorer: Target
    unscored = "no text to embed, or a vector that is zero or not finite"

    @functools.cached_property
    def shares(self) -> tuple[float, ...]:
        """The shares of the targets' documents, whose numbers the arrays hold anyway."""
        documents = self.arrays["documents"]
        return tuple((documents / documents.sum()).tolist())

    @classmethod
    def schema(cls, scorer: Any) -> Schema:  # noqa: ARG003
        """Return a target's vectors, with a mass and a price each."""
        return {
            "vectors.{groups}": ArraySpec("float32", ("documents.{groups}", "width")),
            "masses.{groups}": ArraySpec("float64", ("documents.{groups}",), minimum=0),
            "prices.{groups}": ArraySpec("float32", ("documents.{groups}",)),
            "eps": ArraySpec("float64", ("groups",), minimum=0, finite=False),
            "documents": ArraySpec("int64", ("groups",), minimum=1),
            "groups": Names(),
        }

    def check(self) -> None:
        """Raise UserError for an unknown embedder."""
        _ = self._source

    def lines(self) -> list[str]:
        """Return the report: the embedder, then a line for each target."""
        maker = self.report["embedder"]
        found = [f"embedder: {maker['model']}, {maker['pooling']} of layer {maker['layer']}"]
        for name, report in self.report["targets"].items():
            found.append(f"target {name}: " + ", ".join(f"{key} {value}" for key, value in report.items()))
        return found

    @functools.cached_property
    def _source(self) -> VectorSource:
        width = self.arrays["vectors.0"].shape[1]
        return VectorSource(self.scorer, Maker.of(self.report["embedder"]), width)

    @functools.cached_property
    def _potentials(self) -> list[Potential]:
        from dvsel.transport.potential import Potential

        return [
            Potential(
                self.arrays[f"vectors.{number}"],
                self.arrays[f"masses.{number}"],
                self.arrays[f"prices.{number}"],
                self.scorer.cost,
                eps,
            )
            for number, eps in enumerate(self.arrays["eps"].tolist())
        ]

    def score(self, batch: Batch) -> Rows:
        """Return minus the potential, float32 (n,) or (n, groups); NaN for a document without a usable vector."""
        if not len(batch):
            return np.empty(0 if len(self.groups) == 1 else (0, len(self.groups)), np.float32)
        vectors = self._source.of(batch)
        scores = -np.stack([potential(vectors) for potential in self._potentials], 1)
        scores[~np.isfinite(scores)] = np.nan
        return scores[:, 0] if len(self.groups) == 1 else scores


def _lowest(batches: Iterable[Batch], count: int, place: str) -> tuple[Batch, int]:
    """Return the documents with the lowest hashes, `count` at most, in their order, and how many there are."""
    kept, size = Batch.of([]), 0
    for batch in batches:
        size += len(batch)
        kept = Batch.join([kept, batch] if len(kept) else [batch])
        kept = _take(kept, np.argsort(_keys(kept), kind="stable")[:count])
    if not size:
        raise UserError(f"{place}: holds no document; check the file, and --text-field")
    if size > count:
        _notice(f"{place}: {count} of its {size} documents are used, chosen by a hash; see --target-documents")
    return kept, size


def _keys(batch: Batch) -> npt.NDArray[np.uint64]:
    if batch.keys is not None:
        return batch.keys
    from dvsel.documents.hashing import hash_rows  # loads the compiler, which `--help` can do without

    return hash_rows(batch.text)


def _take(batch: Batch, rows: npt.NDArray[np.integer]) -> Batch:
    keys = None if batch.keys is None else batch.keys[rows]
    return Batch(batch.text.take(rows), keys=keys, vectors=None if batch.vectors is None else batch.vectors.take(rows))


def _notice(what: str) -> None:
    warnings.warn(Notice(what), stacklevel=2)


Target.fitted = FittedTarget
