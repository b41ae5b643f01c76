"""Embeddings: the embedder (`encoder`), the source of vectors (`vector_source`), clusters and neighbours (`clusters`,
`neighbours`), and rules over a set of vectors (`facility`, `duplicates`).

A pool's vectors are made once by `dvsel embed`, or on the fly. Torch is imported only by code that is about to use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from dvsel.errors import UserError
from dvsel.options import Options, option

if TYPE_CHECKING:
    from dvsel.documents.vectors import Maker

POOLINGS = ("auto", "mean", "weighted-mean", "cls", "last")
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class EmbedderOptions(Options):
    """The model that makes a text into a vector, and how."""

    model: str = option(
        "", "sentence encoder or causal language model: folder, or name on the Hugging Face hub", files=True
    )
    pooling: str = option(
        "auto",
        "how the states of tokens become one vector; auto: as a sentence encoder says, else weighted-mean for a causal "
        "model (later tokens count more: RDS+), else mean",
        choices=POOLINGS,
    )
    layer: int = option(-1, "layer whose states are pooled, 1 for the first; those after it cost nothing; -1: the last")
    max_tokens: int = option(
        0,
        "tokens of a text that are read; 0: what a sentence encoder says, else what the model takes, at most 8192",
        minimum=0,
    )
    batch_tokens: int = option(0, "tokens in a batch; 0: 2048 on a CPU, 65536 on a GPU", minimum=0)
    precision: str = option("auto", "auto: bf16 on a GPU, fp32 on a CPU", choices=PRECISIONS)

    def processes_for(self, embedded: bool) -> int:
        """Return one process for each GPU, else one for all cores; 0, one a core, where no text is embedded."""
        from dvsel.language.models import gpus

        return 0 if embedded else max(gpus(), 1)

    def for_vectors_of(self, maker: Maker) -> Self:
        """Return the options that make vectors as `maker` does, unless they name a model themselves.

        Raises UserError for an option that contradicts the maker's.
        """
        if self.model:
            return self
        made = maker.chosen_in(self)
        for name in ("pooling", "layer", "max_tokens"):
            asked, found = getattr(self, name), getattr(made, name)
            if asked not in (getattr(EmbedderOptions, name), found):
                raise UserError(
                    f"{name} {asked}: the pool's embeddings were made with {found}; drop the option, or embed the pool "
                    "with it"
                )
        return made

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer == 0:
            raise UserError("layer 0: out of range; give 1 for the first layer, or -1 for the last")
