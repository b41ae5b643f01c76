"""Distilled scorers: a cheap scorer that streams learns the scores that an expensive one gave a sample of the pool.

MATES (Yu et al. 2024, "MATES: Model-Aware Data Selection for Efficient Pretraining with Data Influence Models") and
NN-CIFT (Agarwal et al. 2025, "Neural Networks for Learnable and Scalable Influence Estimation of Instruction
Fine-Tuning Data") learn influence so, from a sample, with BERT and with a small network on embeddings. Here the
learner is linear over hashed n-grams, and over the document's embedding v where the pool has embeddings or a model is
named:

    score = intercept + mean over the document's n-grams of the weight of their buckets + v . weights,

fitted by ridge regression (`dvsel.distillation.ridge`). Over n-grams it costs what DSIR costs, as it is the same pass.
The weight of each of the two is chosen by how well the result ranks; embeddings that hardly improve it are left out.

The fit goes in steps that leave files (`dvsel.commands.distil`): the teacher, the sample, the teacher's scores of it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from dvsel.documents.vectors import Maker
from dvsel.embeddings import EmbedderOptions
from dvsel.embeddings.vector_source import VectorSource
from dvsel.errors import UserError
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.ngrams.spec import MAX_BUCKETS, MAX_NGRAMS, NgramSpec
from dvsel.options import option
from dvsel.schema import GROUPS, ArraySpec, Schema, Unfit

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch


class FittedDistilled(Fitted):
    """A distilled scorer, which stands for its teacher.

    arrays: weights float32 (groups, buckets), where n-grams are looked at; vectors float64 (groups, width), the weights
    of an embedding's numbers, where embeddings are; intercepts float64 (groups,).
    report: teacher, its name and options and how much of the pool it scored; groups, a mapping for each with the
    quality of the fit; embedder, where there were embeddings to learn from.
    """

    scorer: Distilled

    @functools.cached_property
    def unscored(self) -> str:
        """The features that are looked at and that a document may lack."""
        causes = {"weights": "no words", "vectors": "no text to embed"}
        return ", or ".join(why for name, why in causes.items() if name in self.arrays)

    @classmethod
    def schema(cls, scorer: Any) -> Schema:
        """Return a weight for each bucket and group, or for each number of an embedding and group."""
        return {
            "weights": ArraySpec("float32", ("groups", scorer.buckets), optional=True),
            "vectors": ArraySpec("float64", ("groups", "width"), optional=True),
            "intercepts": ArraySpec("float64", ("groups",)),
            **GROUPS,
        }

    def check(self) -> None:
        """Raise Unfit for a scorer without any weights, and UserError for an unknown embedder."""
        if not self.arrays.keys() & {"weights", "vectors"}:
            raise Unfit("it has weights of neither n-grams nor embeddings")
        if "vectors" in self.arrays:
            _ = self._source

    @property
    def selector(self) -> str:
        """The teacher's selection rule."""
        return str(self.report["teacher"]["selector"])

    @property
    def teacher_name(self) -> str:
        """The teacher's name."""
        return str(self.report["teacher"]["scorer"])

    @property
    def title(self) -> str:
        """The teacher's title, with the rank correlation."""
        correlations = sorted({f"{found['spearman']:.2f}" for found in self.report["groups"]}, key=float)
        ends = " to ".join(dict.fromkeys((correlations[0], correlations[-1])))
        return f"{self.scorer.teacher}, distilled (rank correlation {ends})"

    def lines(self) -> list[str]:
        """Return the teacher and its cost, then how well it was learned."""
        teacher = self.report["teacher"]
        return [
            f"teacher: {self.scorer.teacher}",
            f"it scored {teacher['documents']:,} documents of the pool, {teacher['bytes']:,} bytes of text, and gave "
            f"{teacher['unscored']:,} others no score",
            *self._embedder(),
            "rank correlation with it (Spearman), on documents held out:",
            *(_line(found, "embedder" in self.report) for found in self.report["groups"]),
        ]

    def _embedder(self) -> list[str]:
        """Return the embedder, and whether its embeddings are used."""
        if not (maker := self.report.get("embedder")):
            return []
        use = "learned from" if "vectors" in self.arrays else "not used, as n-grams alone rank about as well:"
        return [f"{use} embeddings by {maker['model']}, {maker['pooling']} of layer {maker['layer']}"]

    @functools.cached_property
    def _source(self) -> VectorSource:
        width = self.arrays["vectors"].shape[1]
        return VectorSource(self.scorer, Maker.of(self.report["embedder"]), width)

    @functools.cached_property
    def _table(self) -> npt.NDArray[np.float32]:
        # A copy: an array of a file may be read-only, and numba compiles a kernel again for a read-only one.
        return np.array(self.arrays["weights"], np.float32, order="C")

    def score(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Return float32 (n,) or (n, groups); NaN for documents without words or vector, where these are looked at."""
        scores = np.tile(self.arrays["intercepts"], (len(batch), 1))
        if len(batch) and "weights" in self.arrays:
            scores += self._of_ngrams(batch)
        if len(batch) and "vectors" in self.arrays:
            scores += self._of_vectors(batch)
        found = scores.astype(np.float32)
        return found[:, 0] if len(self.groups) == 1 else found

    def _of_ngrams(self, batch: Batch) -> npt.NDArray[np.float64]:
        from dvsel.ngrams.lookup import score

        sums, words, ngrams = score(batch.text, self._table, self.scorer.spec)
        found: npt.NDArray[np.float64] = sums / np.maximum(ngrams, 1)[:, None]
        found[words == 0] = np.nan
        return found

    def _of_vectors(self, batch: Batch) -> npt.NDArray[np.float64]:
        from dvsel.embeddings.regression import products

        vectors = self._source.of(batch)
        # Copies of the weights, for the same reason as that of the table.
        return np.stack([products(vectors, weights.copy()) for weights in self.arrays["vectors"]], axis=1)


def _line(found: Mapping[str, Any], with_embeddings: bool) -> str:
    name = f"{found['name']}: " if found["name"] else ""
    part = f" (features: {found['embeddings']:.0%} embeddings, the rest n-grams)" if with_embeddings else ""
    return (
        f"  {name}{found['spearman']:.3f} on {found['held_out']:,} documents, fitted on {found['trained']:,}{part}; "
        f"{found['top_tenth']:.0%} of the teacher's best tenth are in its own best tenth"
    )


@dataclass(frozen=True)
class Distilled(EmbedderOptions, Scorer):
    """Score as an expensive scorer would, learned from its scores of a sample (MATES: Yu et al. 2024).

    `--distil` with any scorer does the same; this one takes a teacher that is fitted already. It learns from n-grams,
    and from embeddings too where the pool is of embeddings (dvsel embed), or --model names what embeds it.
    """

    group: ClassVar[str] = "no model"
    usage: ClassVar[tuple[str, ...]] = ("--pool pool/ --teacher influence.fitted",)
    steps: ClassVar[str] = "distil"
    fitted: ClassVar[type[Fitted]] = FittedDistilled

    teacher: str = option("", "the scorer to learn from: a file of dvsel fit", files=True)
    ngrams: int = option(2, "longest n-gram in words; shorter ones are taken too", minimum=1, maximum=MAX_NGRAMS)
    buckets: int = option(1 << 16, "buckets that n-grams are hashed into", minimum=1, maximum=MAX_BUCKETS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.teacher:
            raise UserError(
                "distilled: no teacher; name a fitted scorer with --teacher FILE, or give another scorer and --distil"
            )

    def processes_for(self, embedded: bool) -> int:
        """Return 0, one process a core, unless a model embeds texts."""
        return super().processes_for(embedded) if self.model else 0

    @property
    def takes_pool(self) -> bool:
        """True: the teacher scores a sample of the pool."""
        return True

    @property
    def spec(self) -> NgramSpec:
        """The n-grams that documents are made of."""
        return NgramSpec(self.ngrams, self.buckets)
