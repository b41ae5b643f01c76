"""The scorer interface, and how to write one.

A scorer gives each document one float, higher = keep. It is a frozen dataclass whose fields are its options: they
become the flags of `dvsel score NAME`, the keys of a recipe and the record of a run. It has one method, `fit`,
which sees a sample of the pool and the targets once and returns a fitted scorer; that one scores batches of
documents and keeps no state. Sharding, batching, workers, resume and progress are the flow's.

    @dataclass(frozen=True)
    class Length(Scorer):
        \"\"\"Prefer documents near a length.\"\"\"

        best: int = option(1000, "length that scores highest, in bytes", minimum=1)

        def fit(self, pool, targets):
            return FittedLength(self, {})

    class FittedLength(Fitted):
        def score(self, batch):
            return -np.abs(batch.text.sizes - self.scorer.best).astype(np.float32)

    Length.fitted = FittedLength

A package adds it with an entry point in the group `dvsel.scorers` (`length = "my_package:Length"`), as dvsel's own
do, and tests it with `dvsel.testing.check_scorer`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from dvsel.options import Options

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dvsel.documents.columns import Batch
    from dvsel.documents.vectors import Maker
    from dvsel.schema import Schema


@dataclass(frozen=True)
class Scorer(Options):
    """A method and its options, not yet fitted."""

    fitted: ClassVar[type[Fitted]]
    """The class that `fit` returns an instance of."""
    takes_target: ClassVar[bool] = False
    """True where `fit` needs at least one target."""
    splits_targets: ClassVar[bool] = False
    """True where each file of a folder or glob that is named as a target is a target of its own."""
    usage: ClassVar[tuple[str, ...]] = ("",)
    """Examples for the help, one for each way to use it: the words after `dvsel fit NAME`."""
    group: ClassVar[str] = ""
    """The heading under which help lists it, by its needs: "no model", "gradients"...; "" for the package's name."""
    selector: ClassVar[str] = "topk"
    """The selection rule of the method's paper, by the selector's name."""
    uses_all_cores: ClassVar[bool] = False
    """True where `score` itself uses all cores, or a GPU, so that further processes would only get in its way."""
    tolerance: ClassVar[float] = 0.0
    """The largest difference that the other documents of a batch may make to a score: 0, unless matrix products round
    by their shapes."""
    steps: ClassVar[str] = ""
    """The fit in steps that leave files, of those in `dvsel.commands.fit.fit_scorer`; "" for `fit`."""

    def processes_for(self, embedded: bool) -> int:  # noqa: ARG002
        """Return how many processes the flow scores in unless the user says: 0 for one a core.

        embedded: True where every shard of the pool comes with vectors, so that no text has to be embedded.
        """
        return int(self.uses_all_cores)

    def for_vectors_of(self, maker: Maker) -> Self:  # noqa: ARG002
        """Return the scorer to fit on a pool whose vectors `maker` made; itself for one that embeds no text.

        Raises UserError for options that ask for other vectors.
        """
        return self

    @property
    def takes_pool(self) -> bool:
        """True where `fit` reads a sample of the pool."""
        return False

    @property
    def needs(self) -> tuple[str, ...]:
        """Dotted paths of further fields that `score` reads from `Batch.columns`."""
        return ()

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> Fitted:
        """Fit on a sample of the pool and on the targets.

        pool: batches of the sample, in an order that depends on the documents alone; empty unless `takes_pool`.
        targets: batches of each target, by its name, in the order of the command line, and of each option that was
        declared with `documents=True`, by the option's name; empty unless given.
        Raises UserError for a target or a sample that the method cannot use. Warn with `dvsel.errors.Notice` of
        anything else that a user should know; show how far a long fit is with `dvsel.progress.show`.
        """
        raise NotImplementedError


class Fitted:
    """A fitted scorer: the scorer's options, arrays, and a report. Nothing else: it is saved as these three.

    scorer: the options that it was fitted with.
    arrays: what `fit` learned, numpy arrays by name; when read from a file, shared by all processes that read it. The
    names `groups` and `shares` are taken: they hold what `groups` and `shares` give.
    report: what `fit` found out about it, as plain values for JSON; `dvsel fit` and `dvsel inspect` show it.
    origin: what the run that fitted it was told to read, names by option; the flow notes it.
    """

    @functools.cached_property
    def groups(self) -> tuple[str, ...]:
        """Names of the score's columns; one empty name for a scorer that was fitted without groups."""
        from dvsel.schema import unpacked  # numpy, which `--help` does without

        return tuple(unpacked(self.arrays["groups"])) if "groups" in self.arrays else ("",)

    @functools.cached_property
    def shares(self) -> tuple[float, ...]:
        """The share of the budget that each group takes, summing to 1; equal for a scorer that was fitted without."""
        if "shares" in self.arrays:
            return tuple(self.arrays["shares"].tolist())
        return (1 / len(self.groups),) * len(self.groups)

    @functools.cached_property
    def unscored(self) -> str:
        """Cause for which `score` gives NaN, for the summary ("fewer than 100 words")."""
        return "no usable score"

    @property
    def selector(self) -> str:
        """The name of the selection rule for the scores: the scorer's, unless a class knows better."""
        return self.scorer.selector

    @property
    def teacher_name(self) -> str:
        """The name of the scorer that this one was distilled from, by which it can be asked for too; "" for none."""
        return ""

    @property
    def title(self) -> str:
        """Its name in score files and reports; "" for the scorer's name and the options that are not at default."""
        return ""

    def __init__(
        self,
        scorer: Scorer,
        arrays: Mapping[str, npt.NDArray[Any]],
        *,
        groups: Sequence[str] = (),
        shares: npt.ArrayLike | None = None,
    ) -> None:
        """Hold what a fit made, or what a file holds: then the arrays have the groups and their shares already.

        groups, shares: what the properties of these names give, which the arrays will hold as JSON in uint8 and as
        float64 (groups,).
        """
        import numpy as np

        from dvsel.schema import packed

        self.scorer = scorer
        self.arrays = dict(arrays)
        if groups:
            self.arrays["groups"] = packed(groups)
        if shares is not None:
            self.arrays["shares"] = np.array(shares, np.float64)
        self.report: dict[str, Any] = {}
        self.origin: dict[str, list[str]] = {}

    @classmethod
    def schema(cls, scorer: Any) -> Schema | None:  # noqa: ARG003
        """Return types, shapes and ranges of `arrays` for a scorer with these options (`dvsel.schema`).

        They are checked when a file is read, before any other code looks at the arrays. None: the class itself has to
        expect any arrays.
        """
        return None

    def check(self) -> None:
        """Raise ValueError for arrays or a report that the schema allows and that cannot be used.

        Called when a file is read.
        """

    def lines(self) -> list[str]:
        """Return the report as lines for a person."""
        return [f"{name}: {value}" for name, value in self.report.items()]

    def score(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Return float32 (n,), or (n, groups) where there are several; NaN where a document has no usable score."""
        raise NotImplementedError
