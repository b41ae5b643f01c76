"""Prediction through the `fasttext` package, for the models that cannot be folded.

The package is called one document at a time, at its own speed. It believes a file's sizes, and writes past its memory
where they are wrong, so `model` reads the bytes first.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel import private
from dvsel.documents.columns import Column
from dvsel.errors import UserError
from dvsel.fasttext.model import PREFIX, read_content

_PLACE = "the fastText model"
_NO_THRESHOLD = -1.0  # at 0, hierarchical softmax leaves out labels below 1e-5


class Library:
    """Model that the package holds.

    content: uint8, the bytes of its file. labels: all its labels, without prefix, in the order of the columns wanted.
    """

    def __init__(self, content: npt.NDArray[np.uint8], labels: tuple[str, ...]) -> None:
        package()
        if set(read_content(content, _PLACE).labels) != set(labels):
            raise UserError(f"{_PLACE}: its labels are not those that it was fitted with; fit again")
        self._model = _loaded(content)
        self._columns = {label: column for column, label in enumerate(labels)}

    def probabilities(self, column: Column) -> npt.NDArray[np.float64]:
        """Return the library's probability of each label, float64 (n, labels); NaN where it finds no feature.

        column: prepared texts.
        """
        reported = np.full((len(column), len(self._columns)), np.nan)
        for row in range(len(column)):
            for probability, label in self._predict(column[row]):
                reported[row, self._columns[label.removeprefix(PREFIX)]] = probability
        return reported

    def _predict(self, text: bytes) -> list[tuple[float, str]]:
        try:
            return private.fasttext_predict(self._model, text, len(self._columns), _NO_THRESHOLD)
        except RuntimeError as error:  # "Encountered NaN"
            raise UserError(f"{_PLACE}: gives NaN ({error}); copy or download it again") from error


def package() -> Any:
    """Import the `fasttext` package; UserError where it is missing."""
    try:
        import fasttext
    except ImportError as error:
        raise UserError(
            "this fastText model needs the package fasttext, which is not installed; pip install 'dvsel[fasttext]'"
        ) from error
    return fasttext


def _loaded(content: npt.NDArray[np.uint8]) -> Any:
    """Load a model by way of a file: the package reads nothing else."""
    with tempfile.NamedTemporaryFile(prefix="dvsel-", suffix=".bin") as file:
        file.write(content.data)
        file.flush()
        try:
            return package().load_model(file.name)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"the fasttext package refuses the model ({error}); copy or download it again") from error
