"""Language models for scorers: loaded (`models`), fed with documents (`windows`), asked for losses (`token_losses`).

All need the packages of `pip install 'dvsel[models]'`, and are imported only by code that is about to use a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvsel.options import Options, option, under

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch, Column

MEASURES = ("mean", "total", "bits-per-char", "min-k")
PRECISIONS = ("auto", "fp32", "bf16", "autocast")


@dataclass(frozen=True)
class ModelOptions(Options):
    """Options of a language model that reads documents. Raises UserError for what is out of range."""

    window: int = option(0, "tokens that a model sees at once; 0: what it takes, at most 8192", minimum=0)
    stride: int = option(
        0, "tokens between the beginnings of two windows over a long document; 0: half a window", minimum=0
    )
    batch_tokens: int = option(0, "tokens in a batch; 0: 8192 on a CPU, 32768 on a GPU", minimum=0)
    precision: str = option(
        "auto", "auto: bf16 on a GPU, fp32 on a CPU; autocast: weights in fp32, products in bf16", choices=PRECISIONS
    )

    def processes_for(self, embedded: bool) -> int:  # noqa: ARG002
        """Return one process for each GPU, else one for all cores."""
        from dvsel.language.models import gpus

        return max(gpus(), 1)


@dataclass(frozen=True)
class Documents:
    """Documents that a model is asked about.

    texts: (n,). prompts: put before each text, as context only, or None. labels: of each text, for a classifier; "" for
    none.
    """

    texts: Sequence[str]
    prompts: Sequence[str] | None = None
    labels: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Iterable[int]) -> Documents:
        """Return some of them, in this order."""
        rows = list(rows)
        texts, prompts, labels = (
            None if part is None else [part[row] for row in rows] for part in (self.texts, self.prompts, self.labels)
        )
        assert texts is not None
        return Documents(texts, prompts, labels)

    def __getitem__(self, where: slice) -> Documents:
        prompts, labels = (None if part is None else part[where] for part in (self.prompts, self.labels))
        return Documents(self.texts[where], prompts, labels)


@dataclass(frozen=True)
class PromptOptions(ModelOptions):
    """Options of a language model that reads documents which may begin with an instruction."""

    prompt_field: str = option("", "field with an instruction, which is context and has no loss of its own")
    prompt_separator: str = option(
        r"\n", r"what stands between instruction and text; \n is a line feed", when=under("prompt_field")
    )

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the fields beside the text."""
        return (self.prompt_field,) if self.prompt_field else ()

    def documents(self, batches: Iterable[Batch]) -> Documents:
        """Return the batches' documents, in order; the text is empty where the instruction is not a string."""
        texts: list[str] = []
        prompts: list[str] = []
        for batch in batches:
            mine = strings(batch.text)
            if self.prompt_field:
                column = batch.columns[self.prompt_field]
                separator = self.prompt_separator.replace(r"\n", "\n")
                prompts += [prompt + separator for prompt in strings(column)]
                mine = [text if is_string else "" for text, is_string in zip(mine, _are_strings(column), strict=True)]
            texts += mine
        return Documents(texts, prompts if self.prompt_field else None)


def strings(column: Column) -> list[str]:
    """Return a column's rows as strings."""
    return [column[row].decode(errors="replace") for row in range(len(column))]


def _are_strings(column: Column) -> list[bool]:
    from dvsel.documents.columns import Kind

    are: list[bool] = (column.kind == Kind.STRING).tolist()
    return are
