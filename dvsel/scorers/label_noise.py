"""Wrong labels, of documents that carry one: these have low scores.

`--mode knn` asks the other documents of the pool, without any label that is known to be right (`dvsel.labels.knn`);
`margin` (`dvsel.labels.margin`) and `lava` (LAVA: Just et al. 2023; `dvsel.labels.lava`) compare with clean documents
by optimal transport. Labels are compared as strings, a number or a boolean by its JSON text.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from dvsel.documents.vectors import Maker
from dvsel.embeddings import EmbedderOptions
from dvsel.errors import Notice, UserError
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.labels import arrays as of_modes
from dvsel.options import option, under
from dvsel.schema import Names, Schema, unpacked

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch
    from dvsel.embeddings.vector_source import VectorSource
    from dvsel.labels.documents import Codes, Floats, Gathered, Keys, Labelled

MODES = ("knn", "margin", "lava")
_FEWEST = 2  # documents of a label: one alone has no other that supports it

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class LabelNoise(EmbedderOptions, Scorer):
    """Prefer documents whose label can be trusted.

    The score says how much better the label suits the document than any other label does.
    """

    group: ClassVar[str] = "embeddings"
    usage: ClassVar[tuple[str, ...]] = (
        "--pool pool/ --model models/all-MiniLM-L6-v2",
        "--pool pool/ --model models/all-MiniLM-L6-v2 --mode margin --clean checked.jsonl",
    )
    uses_all_cores: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-3

    mode: str = option(
        "knn",
        "knn: by the labels of similar documents of the pool; margin: by distances to clean documents of each label; "
        "lava: the value of a document to them (Just et al. 2023)",
        choices=MODES,
    )
    label_field: str = option("label", "field with a document's label")
    clean: tuple[str, ...] = option((), "margin, lava: shards of documents whose labels are right", documents=True)
    neighbours: int = option(50, "knn: similar documents that are asked", minimum=1, when=under("mode", "knn"))
    index: int = option(
        50_000, "documents with a label that the fit takes from the pool's sample, at most", minimum=_FEWEST
    )
    eps: float = option(
        0.1,
        "margin, lava: temperature of transport, in units of 1 - cos",
        minimum=0.01,
        when=under("mode", "margin", "lava"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.label_field:
            raise UserError("label_field is empty; name the field that holds labels")
        if self.mode == "knn" and self.clean:
            raise UserError("label-noise: mode knn takes no clean documents; drop --clean, or give --mode margin")
        if self.mode != "knn" and not self.clean:
            raise UserError(f"label-noise: mode {self.mode} needs clean documents; name some with --clean")

    @property
    def takes_pool(self) -> bool:
        """True: a label is judged by those of other documents."""
        return True

    @property
    def needs(self) -> tuple[str, ...]:
        """The field of labels."""
        return (self.label_field,)

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> FittedLabelNoise:
        """Learn from the labels of the pool's sample, and from `targets["clean"]`."""
        from dvsel.embeddings.vector_source import VectorSource
        from dvsel.labels.documents import gather

        source = VectorSource(self)
        found = gather(pool, source, self.label_field, self.index)
        sample = _usable(found, f"the pool's sample: no document has a label in the field {self.label_field!r}")
        if self.mode == "knn":
            names, arrays, learned = self._by_others(sample)
        else:
            clean = self._clean(targets["clean"], source)
            names, arrays, learned = (self._by_margin if self.mode == "margin" else self._by_lava)(sample, clean)
        return self._fitted(source, names, arrays, _counts(found) | learned)

    def _clean(self, batches: Iterable[Batch], source: VectorSource) -> Labelled:
        from dvsel.labels.documents import gather

        field, everything = self.label_field, 1 << 62  # more documents than there can be
        return _usable(gather(batches, source, field, everything), f"--clean: no document has a label in {field!r}")

    def _fitted(
        self, source: VectorSource, names: tuple[bytes, ...], arrays: Arrays, report: dict[str, Any]
    ) -> FittedLabelNoise:
        from dvsel.labels.documents import to_array

        assert source.maker is not None
        fitted = FittedLabelNoise(source.options(self), {**arrays, "names": to_array(names)})
        fitted.report = {**report, "embedder": dataclasses.asdict(source.maker)}
        return fitted

    def _by_others(self, sample: Labelled) -> tuple[tuple[bytes, ...], Arrays, dict[str, Any]]:
        from dvsel.labels.knn import learn

        rare = [name for name, count in zip(sample.names, sample.counts, strict=True) if count < _FEWEST]
        if rare:
            _notice(f"{_listed(rare)}: on one document of the sample alone; documents so labelled have no score")
            sample = sample.with_labels(set(sample.names) - set(rare))
        if len(sample.names) < 2:
            raise UserError(
                f"the pool's sample: {_listed(sample.names) or 'no label'} is all that two documents carry; "
                "label-noise compares labels, so give documents of two at least"
            )
        found = learn(sample, self.neighbours)
        if found is None:
            raise UserError("the pool's sample: all documents have the same vector; see --text-field")
        report = {"documents": len(sample), "labels": len(sample.names), "ridge": found.ridge, "linear": found.linear}
        return sample.names, found.arrays, report

    def _by_margin(self, sample: Labelled, clean: Labelled) -> tuple[tuple[bytes, ...], Arrays, dict[str, Any]]:
        from dvsel.labels.margin import learn

        _check_clean(clean, 2)
        if unknown := sorted(set(sample.names) - set(clean.names)):
            _notice(f"{_listed(unknown)}: on no clean document; documents so labelled have no score")
        if unused := sorted(set(clean.names) - set(sample.names)):
            _notice(f"{_listed(unused)}: on clean documents alone; they have no prices")
        sample = sample.with_labels(clean.names)
        report = {"documents": len(sample), "clean documents": len(clean), "labels": len(clean.names)}
        return clean.names, learn(sample, clean, self.eps), report

    def _by_lava(self, sample: Labelled, clean: Labelled) -> tuple[tuple[bytes, ...], Arrays, dict[str, Any]]:
        from dvsel.labels.lava import learn

        _check_clean(clean, 1)
        if len(sample) < 2:
            raise UserError("the pool's sample: one document has a label; LAVA compares with others, so give more")
        arrays, transported = learn(sample, clean, self.eps)
        report = {"documents": transported, "clean documents": len(arrays["labels"]), "labels": len(sample.names)}
        return sample.names, arrays, report


def _usable(found: Gathered, cause: str) -> Labelled:
    if not len(found.documents):
        raise UserError(f"{cause}, or none of those a vector; name the field with --label-field")
    return found.documents


def _check_clean(clean: Labelled, least: int) -> None:
    if len(clean.names) < least:
        raise UserError(
            f"--clean: {_listed(clean.names)} is the only label; give clean documents of two labels or more"
        )


def _counts(found: Gathered) -> dict[str, Any]:
    return {"without a label": found.without_label, "without a vector": found.without_vector}


def _listed(names: Iterable[bytes]) -> str:
    """Name labels in a message: `label 'a'`, or `12 labels ('a', 'b', 'c', ...)`."""
    shown = [repr(name.decode(errors="replace")) for name in sorted(names)]
    if len(shown) < 2:
        return "".join(f"label {name}" for name in shown)
    return f"{len(shown)} labels ({', '.join(shown[:3])}{', ...' if len(shown) > 3 else ''})"


def _notice(message: str) -> None:
    warnings.warn(Notice(message), stacklevel=4)


class Judge(Protocol):
    """The part of a mode that scores documents."""

    def score(self, vectors: Floats, labels: Codes, keys: Keys) -> Floats:
        """Return float32 (n,), for unit vectors (n, d), labels and keys."""


def _by_neighbours(scorer: LabelNoise, arrays: Arrays) -> Judge:
    from dvsel.labels.knn import Judge

    return Judge(arrays, scorer.neighbours)


def _by_margins(scorer: LabelNoise, arrays: Arrays) -> Judge:
    from dvsel.labels.margin import Judge

    return Judge(arrays, scorer.eps)


def _by_values(scorer: LabelNoise, arrays: Arrays) -> Judge:
    from dvsel.labels.lava import Judge

    return Judge(arrays, scorer.eps)


_JUDGES = {"knn": _by_neighbours, "margin": _by_margins, "lava": _by_values}  # each loads torch when it is called


class FittedLabelNoise(Fitted):
    """A fitted label-noise scorer.

    arrays: names, the labels that have scores as JSON, uint8; and those of the mode's `Judge` in `dvsel.labels`.
    """

    scorer: LabelNoise
    unscored = "no label, a label that the fit did not know well enough, or no vector"

    @classmethod
    def schema(cls, scorer: Any) -> Schema:
        """Return the mode's arrays, and the labels."""
        return {"names": Names(), **of_modes.SCHEMAS[scorer.mode]}

    def check(self) -> None:
        """Raise Unfit for arrays that do not suit the mode, and UserError for an unknown embedder."""
        of_modes.check(self.scorer.mode, self.arrays, len(unpacked(self.arrays["names"])))
        _ = self._source

    @functools.cached_property
    def _source(self) -> VectorSource:
        from dvsel.embeddings.vector_source import VectorSource

        vectors = self.arrays["vectors" if self.scorer.mode == "knn" else "targets"]
        return VectorSource(self.scorer, Maker.of(self.report["embedder"]), vectors.shape[1])

    @functools.cached_property
    def _names(self) -> tuple[bytes, ...]:
        from dvsel.labels.documents import from_array

        return from_array(self.arrays["names"])

    @functools.cached_property
    def _judge(self) -> Judge:
        return _JUDGES[self.scorer.mode](self.scorer, self.arrays)

    def score(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Return float32 (n,); NaN without a vector, or without a label that the fit knew."""
        from dvsel.labels.documents import UNKNOWN, codes, keys_of, labels_of

        scores = np.full(len(batch), np.nan, np.float32)
        if len(batch):
            labels = codes(labels_of(batch.columns[self.scorer.label_field]), self._names)
            vectors = self._vectors(batch)
            rows = np.flatnonzero((labels != UNKNOWN) & ~np.isnan(vectors).any(axis=1))
            scores[rows] = self._judge.score(vectors[rows], labels[rows], keys_of(batch)[rows])
        return scores

    def _vectors(self, batch: Batch) -> Floats:
        from dvsel.embeddings.neighbours import unit

        return unit(self._source.of(batch))


LabelNoise.fitted = FittedLabelNoise
