"""Embeddings of documents, and what made them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dvsel.errors import UserError
from dvsel.options import from_mapping

Options = TypeVar("Options", bound=Any)


@dataclass(frozen=True, slots=True)
class Maker:
    """The model and the settings that make a text into a vector.

    model: as the user named it. digest: hex digits that change with the model's files. pooling: the way from
    the states of a text's tokens to one vector. layer: of the states, 1 for the first. max_tokens: read of a text.
    """

    model: str
    digest: str
    pooling: str
    layer: int
    max_tokens: int

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Maker:
        """Make it of what `dataclasses.asdict` gave. Raises UserError for values of other types."""
        return from_mapping(cls, values, "what made the vectors")

    def chosen_in(self, options: Options) -> Options:
        """Return options of an embedder, a dataclass, that make the same vectors again."""
        made = {name: getattr(self, name) for name in ("model", "pooling", "layer", "max_tokens")}
        return dataclasses.replace(options, **made)

    def check_same(self, other: Maker, mine: str, others: str) -> None:
        """Raise UserError unless vectors of both can be compared; mine, others: whose they are, for the error."""
        for field in dataclasses.fields(self)[1:]:  # the same files may lie in another folder
            own, their = getattr(self, field.name), getattr(other, field.name)
            if own != their:
                what = "the model's files differ" if field.name == "digest" else f"{field.name} {own} and {their}"
                raise UserError(
                    f"{others} were embedded by {other.model}, {mine} by {self.model}, and not alike ({what}); "
                    "embed both with the same model and options"
                )


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings of n documents.

    values: float16 or float32 (n, width); a row of NaN for a document that has none.
    """

    values: npt.NDArray[Any]
    maker: Maker

    def __len__(self) -> int:
        return len(self.values)

    @property
    def row(self) -> int:
        """The bytes of one vector."""
        return int(self.values.itemsize * self.values.shape[1])

    def take(self, rows: npt.NDArray[np.integer]) -> Vectors:
        """Return the vectors of these rows, in this order."""
        return Vectors(self.values[rows], self.maker)

    @classmethod
    def join(cls, parts: Sequence[Vectors]) -> Vectors:
        """Join vectors of one maker, in order."""
        return cls(np.concatenate([part.values for part in parts]), parts[0].maker)
