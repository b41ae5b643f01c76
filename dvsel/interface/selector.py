"""The selector interface, and how to write one.

A selector gives each document a key, from its score and from noise; the documents with the highest keys that
fit the budget are kept. It is a frozen dataclass whose fields are its options: they become the flags of
`dvsel select --method NAME`, the keys of a recipe and the record of a run. Reading score files, quotas,
duplicates, ties and the exact cut are not a selector's business.

    @dataclass(frozen=True)
    class Middle(Selector):
        \"\"\"Keep the scores nearest to a value.\"\"\"

        centre: float = option(0.0, "score that is kept first")

        def key(self, score, uniform):
            return -np.abs(score - np.float32(self.centre))

A key depends on its own document alone, so that the subset is the same for any sharding, order and number of
workers. A package adds a selector with an entry point in the group `dvsel.selectors`
(`middle = "my_package:Middle"`), as dvsel's own do, and tests it with `dvsel.testing.check_selector`.

A rule that has to see the set, not one document at a time, is a `SetSelector`: it gives all documents their keys in
passes of its own. The exact cut and the writing are the same for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dvsel.options import Options

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dvsel.budget import Budget
    from dvsel.interface.candidates import Candidates


@dataclass(frozen=True)
class Selector(Options):
    """A selection rule and its options. Making it with contradicting options raises UserError."""

    noisy: ClassVar[bool] = False
    """True where `key` uses `uniform`: another seed then selects another subset."""

    def key(self, score: npt.NDArray[np.float32], uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return the keys of n documents: the highest are kept first, NaN never.

        score: float32 (n,), NaN for a document without a usable score; its key must be NaN too.
        uniform: float64 (n,), a number in the open interval (0, 1) for each document, which is drawn from the
        seed and the document itself.
        Returns float32 (n,).
        """
        raise NotImplementedError

    def score_of(self, key: float) -> float | None:  # noqa: ARG002
        """Return the score that has this key, or None where a key does not tell it: a report then gives the key."""
        return None

    @property
    def budget(self) -> Budget | None:
        """The budget that the rule itself sets, or None. A share is of the documents whose key is not NaN."""
        return None

    @property
    def needs_budget(self) -> bool:
        """True where the user has to give a budget: the rule has none, and its keys do not bound the subset."""
        return self.budget is None


@dataclass(frozen=True)
class SetSelector(Selector):
    """A rule whose keys depend on other documents too."""

    divides_budget: ClassVar[bool] = False
    """True where the rule divides the budget itself, so that a quota cannot."""
    weight_field: ClassVar[str] = ""
    """The field that the kept documents' weights are written to; "" for a rule without weights."""

    @property
    def looks_at_vectors(self) -> bool:
        """True where the rule needs embeddings with these options."""
        return True

    def rank(self, candidates: Candidates) -> list[str]:
        """Fill `candidates.keys`; return what the summary should say.

        The keys may depend on the documents, their scores and vectors, the limit and the seed; on nothing else.
        """
        raise NotImplementedError

    def weight(
        self,
        key: npt.NDArray[np.float32],
        uniform: npt.NDArray[np.float64],
        threshold: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """Return the weights of kept documents, float32 (n,), for a rule with a `weight_field`.

        threshold: float32 (n,), the highest key that the document's budget left out, -inf where it left none.
        """
        raise NotImplementedError
