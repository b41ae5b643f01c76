"""Token counts of documents: from a field, by a tokenizer, or estimated.

The estimate is linear in counts of a document's bytes: tokens = w . (words, letters, digits, punctuation marks, white
space but for a plain space that begins a run of it, bytes beyond ASCII). With a tokenizer and a sample size the
weights are fitted to exact counts of a sample of the pool (non-negative least squares of the relative error) and the
error is measured on the sample's other half; without a tokenizer they are `BUILT_IN`, fitted once by
benchmarks/token_estimate.py.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import Bytes, Column, Kind, Offsets
from dvsel.documents.tokenizer import ANY_LENGTH, cut, load
from dvsel.errors import UserError
from dvsel.kernels.jit import kernel
from dvsel.kernels.simd import WIDTH, below, count_ones, equal

_MOST = (1 << 32) - 1  # score files hold 32 bits
FEATURES = ("words", "letters", "digits", "punctuation", "white space", "bytes beyond ASCII")


@dataclass(frozen=True)
class TokenCounter:
    """Counter of tokens. Small and picklable: it travels to every worker and into every score file.

    field: the documents' own count, where they have one. tokenizer: a path or hub name for exact counts.
    weights: of the estimate, one a feature. error: relative error (share) of the total and of one document
    (median), measured on `measured`.
    """

    field: str = ""
    tokenizer: str = ""
    weights: tuple[float, ...] = ()
    error_total: float = 0.0
    error_document: float = 0.0
    measured: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> TokenCounter:
        """Make it of the plain values of a score file's header."""
        return cls(**{**values, "weights": tuple(values["weights"])})

    @property
    def method(self) -> str:
        """A phrase for the summary."""
        exact = f"counted by {self.tokenizer}" if self.tokenizer else ""
        error = f"total {self.error_total:+.1%}, a document {self.error_document:.1%}"
        estimate = f"estimated (error on {self.measured}: {error})"
        if self.measured == BUILT_IN.measured:
            estimate = f"estimated for {self.measured} ({error} off there; here unknown: --tokenizer counts)"
        rest = estimate if self.weights else exact
        return f"field {self.field!r}, where a document lacks it {rest}" if self.field else rest

    def count(self, text: Column, field: Column | None) -> npt.NDArray[np.uint32]:
        """Count each document's tokens, uint32 (n,); meaningless where `field_causes` names the document."""
        if field is None:
            return self._count(text)
        missing = field.kind != Kind.NUMBER
        missing[list(field_causes(field))] = True
        tokens = np.fromiter(
            (0 if missing[row] else int(field[row]) for row in range(len(field))), np.uint32, len(field)
        )
        if missing.any():
            tokens[missing] = self._count(text)[missing]
        return tokens

    def _count(self, text: Column) -> npt.NDArray[np.uint32]:
        if self.weights:
            return estimate(count_features(text), self.weights)
        return exact_counts(self.tokenizer, [text[row].decode(errors="replace") for row in range(len(text))])


BUILT_IN = TokenCounter(
    weights=(0.9574, 0.0433, 0.8488, 0.4401, 0.4618, 0.3083),
    error_total=-0.006,
    error_document=0.052,
    measured="English and code under a byte-level BPE of 65,536 tokens",
)
"""The estimate where no tokenizer is named; benchmarks/token_estimate.py made it, on 9,454 documents of 17 domains."""


def field_causes(field: Column) -> dict[int, str]:
    """Find rows whose token field is there and is not a count, with the cause."""
    causes = {}
    for row in np.flatnonzero((field.kind != Kind.MISSING) & (field.kind != Kind.NULL)).tolist():
        value = field[row]
        shown = value[:40].decode(errors="replace")
        if field.kind[row] != Kind.NUMBER or not value.isdigit():
            causes[row] = f"token count is {shown}, not a whole number"
        elif len(value) > len(str(_MOST)) or int(value) > _MOST:
            causes[row] = f"token count is {shown}, more than {_MOST:,}, the most that a document can have"
    return causes


def estimate(counts: npt.NDArray[np.int64], weights: Sequence[float]) -> npt.NDArray[np.uint32]:
    """Estimate tokens from features (n, 6), uint32 (n,); at least 1 for a text that is not empty."""
    tokens = np.rint(counts @ np.asarray(weights)).astype(np.uint32)
    return np.where(counts.any(axis=1), np.maximum(tokens, 1), 0).astype(np.uint32)


def fit_estimate(texts: Sequence[str], tokenizer: str) -> TokenCounter:
    """Fit an estimate on half of the texts against the tokenizer; measure its error on the others."""
    exact = exact_counts(tokenizer, texts).astype(np.float64)
    counts = count_features(Column.of([text.encode() for text in texts]))
    usable = exact > 0
    exact, counts = exact[usable], counts[usable]
    if len(exact) < 2 * len(FEATURES):
        raise UserError(
            f"the token sample holds {len(exact)} documents with tokens; it needs {2 * len(FEATURES)} or more"
        )
    weights = non_negative_fit(counts[0::2], exact[0::2])
    error_total, error_document = errors(counts[1::2], exact[1::2], weights)
    measured = f"{len(exact[1::2]):,} documents against {tokenizer}"
    return TokenCounter("", tokenizer, weights, error_total, error_document, measured)


def errors(
    counts: npt.NDArray[np.int64], exact: npt.NDArray[np.float64], weights: Sequence[float]
) -> tuple[float, float]:
    """Return the relative error of the sum (signed), and the median relative error of a document."""
    guess = estimate(counts, weights).astype(np.float64)
    return float(guess.sum() / exact.sum() - 1), float(np.median(np.abs(guess / exact - 1)))


def non_negative_fit(counts: npt.NDArray[np.int64], exact: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Find weights >= 0 that minimise the squared relative error, rounded to 4 digits.

    Of the least squares over every subset of features, the best without a negative weight is taken: that is exact,
    and the features are few.
    """
    scaled = counts / exact[:, None]
    best, best_loss = np.zeros(counts.shape[1]), np.inf
    for subset in range(1, 1 << counts.shape[1]):
        chosen = [feature for feature in range(counts.shape[1]) if subset >> feature & 1]
        solution = np.linalg.lstsq(scaled[:, chosen], np.ones(len(exact)), rcond=None)[0]
        loss = np.square(scaled[:, chosen] @ solution - 1).sum()
        if (solution >= 0).all() and loss < best_loss:
            best, best_loss = np.zeros(counts.shape[1]), loss
            best[chosen] = solution
    return tuple(float(weight) for weight in best.round(4))


def exact_counts(name: str, texts: Sequence[str]) -> npt.NDArray[np.uint32]:
    """Count each text's tokens under a transformers tokenizer, without special tokens, uint32 (n,)."""
    encodings = cut(_tokenizer(name), texts, f"tokenizer {name}")
    return np.fromiter((len(encoding) for encoding in encodings), np.uint32, len(texts))


_loaded: dict[str, Any] = {}


def _tokenizer(name: str) -> Any:
    if name not in _loaded:
        if importlib.util.find_spec("transformers") is None:
            raise UserError("--tokenizer needs transformers: pip install 'dvsel[models]'")
        _loaded[name] = load(name, f"tokenizer {name}", "give a folder or a hub name")
        _loaded[name].model_max_length = ANY_LENGTH
    return _loaded[name]


def count_features(text: Column) -> npt.NDArray[np.int64]:
    """Count the features that the estimate is made of, int64 (n, 6) in the order of `FEATURES`."""
    counts = np.zeros((len(text), len(FEATURES)), np.int64)
    _count_features(text.data, text.offsets, counts)
    return counts


@kernel
def _between(data: Bytes, at: int, first: int, last: int) -> np.uint64:
    mask: np.uint64 = below(data, at, np.uint8(last + 1)) & ~below(data, at, np.uint8(first))
    return mask


@kernel
def _count_features(data: Bytes, offsets: Offsets, counts: npt.NDArray[np.int64]) -> None:
    one = np.uint64(1)
    for row in range(len(offsets) - 1):
        word_before = np.uint64(0)
        space_before = np.uint64(0)
        words = letters = digits = spaces = odd_spaces = beyond = 0
        for at in range(offsets[row], offsets[row + 1], WIDTH):
            left = offsets[row + 1] - at
            inside = ~np.uint64(0) if left >= WIDTH else (one << np.uint64(left)) - one
            letter = (_between(data, at, 65, 90) | _between(data, at, 97, 122)) & inside
            digit = _between(data, at, 48, 57) & inside
            plain_space = equal(data, at, np.uint8(32)) & inside
            space = plain_space | (below(data, at, np.uint8(32)) & inside)
            high = ~below(data, at, np.uint8(128)) & inside
            # A word begins at a letter without one before it; the last byte of the block before is carried over.
            words += count_ones(letter & ~((letter << one) | word_before))
            odd_spaces += count_ones((space & ((space << one) | space_before)) | (space & ~plain_space))
            letters += count_ones(letter)
            digits += count_ones(digit)
            spaces += count_ones(space)
            beyond += count_ones(high)
            word_before = letter >> np.uint64(63)
            space_before = space >> np.uint64(63)
        counts[row, 0] = words
        counts[row, 1] = letters
        counts[row, 2] = digits
        counts[row, 3] = offsets[row + 1] - offsets[row] - letters - digits - spaces - beyond
        counts[row, 4] = odd_spaces
        counts[row, 5] = beyond
