"""fastText's supervised models, read from their `.bin` and `.ftz` files.

The format (fastText 0.9's `FastText::saveModel`, versions 11 and 12; all numbers little-endian): magic and version
(int32 each), the arguments (12 int32, 1 float64), the dictionary (its sizes; for each entry the bytes, a zero,
an int64 count and an int8 type; pairs of int32 where it was pruned), then the two matrices, each after a byte that
says whether it is quantised: rows and columns (int64 each) and float32 values. A quantised one has a byte that says
whether norms are apart, rows and columns, the number of codes (int32), codes of a byte each, and a quantiser; where
norms are apart a byte of each row and a quantiser of these. A quantiser has its dimension, the number of its parts, the
length of each and of the last (int32 each), and 256 centroids of float32.

A file may come from anyone, and the library takes what it is given. So all that the library would use as a length, a
place or a divisor is checked here, also in the parts that dvsel does not use itself.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import Bytes, Column
from dvsel.documents.gather import gathered
from dvsel.errors import UserError
from dvsel.fasttext import MOST_CHARS, MOST_WORD_NGRAMS
from dvsel.kernels.jit import kernel
from dvsel.storage.places import info, is_remote, open_read

MAGIC = 793712314
PREFIX = "__label__"

_WITHOUT_CHARS = 11
_VERSIONS = (_WITHOUT_CHARS, 12)
_HEADER = struct.Struct("<2i12id3i2q")
_START = struct.Struct("<2i")
_FLAG = struct.Struct("<B")
_SHAPE = struct.Struct("<2q")
_CODES = struct.Struct("<i")
_QUANTISER = struct.Struct("<4i")
_PAIR = np.dtype([("bucket", "<i4"), ("row", "<i4")])
_CENTROIDS = 256
_LEAST_ENTRY = 1 + 8 + 1  # bytes: the zero after an empty word, count and type
_LOSSES = {1: "hs", 2: "ns", 3: "softmax", 4: "ova"}
_SUPERVISED = 3
_WORD, _LABEL = 0, 1
_MOST_COUNTED = 10**15  # what hierarchical softmax, which builds a tree by counts, takes for no count yet

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class FastTextModel:
    """A supervised fastText model.

    words: row i is the word with id i; `</s>`, the end of a document, is one of them.
    labels: by id, without the prefix `__label__`.
    input: float32 (words + buckets, dim), the vectors of words and of hashed n-grams; of a file, its mapped and
    perhaps unaligned pages. output: float32 (labels, dim). Both have 0 rows where the file is quantised.
    loss: "softmax", "ova" (one against all), "hs" (hierarchical softmax) or "ns" (negative sampling).
    word_ngrams: the longest run of words that is a feature; none is, below 2.
    buckets: rows of the input after the words.
    min_chars, max_chars: lengths of character n-grams (fastText's minn and maxn); no such features for
    max_chars 0.
    quantised: whether its matrices are compressed, as in `.ftz` files.
    """

    words: Column
    labels: tuple[str, ...]
    input: npt.NDArray[np.float32]
    output: npt.NDArray[np.float32]
    loss: str
    word_ngrams: int
    buckets: int
    min_chars: int
    max_chars: int
    quantised: bool = False


def why_not_foldable(model: FastTextModel) -> str:
    """Return why a model is not a sum over features that can be folded; "" where it is."""
    if model.quantised:
        return "its matrices are quantised"
    if model.loss == "hs":
        return "its loss is hierarchical softmax"
    return ""


def read_model(path: str) -> FastTextModel:
    """A model from its file; a local file is mapped, so that only what is used is read.

    Raises UserError for anything but a supervised fastText model, for an unknown version and for a truncated file.
    """
    return read_content(_content(path), path)


def read_content(content: Bytes, place: str) -> FastTextModel:
    """A model from its file's bytes, of which it keeps views; `place` names them in errors. Raises as `read_model`."""
    return _read(_Reader(content, place))


def _content(path: str) -> Bytes:
    with open_read(path) as file:
        if is_remote(path) or not info(path)[0]:
            return np.frombuffer(bytearray(file.read()), np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)


class _Reader:
    """Takes a file's parts one after the other, each checked to lie inside the file before it is used."""

    def __init__(self, content: Bytes, path: str) -> None:
        self.content = content
        self.path = path
        self.at = 0

    def require(self, size: int) -> None:
        """Check that `size` more bytes are there."""
        if size < 0:
            self.damaged()
        if size > len(self.content) - self.at:
            raise UserError(f"{self.path}: truncated (its sizes do not fit the file); copy or download it again")

    def skip(self, size: int) -> int:
        """Skip the next `size` bytes; return where they begin."""
        self.require(size)
        begin, self.at = self.at, self.at + size
        return begin

    def numbers(self, form: struct.Struct) -> tuple[Any, ...]:
        begin = self.skip(form.size)
        return form.unpack(self.content[begin : begin + form.size].tobytes())

    def matrix(self, rows: int, columns: int) -> npt.NDArray[np.float32]:
        """float32 (rows, columns), where the file must say the same."""
        if self.numbers(_SHAPE) != (rows, columns):
            self.damaged()
        begin = self.skip(rows * columns * 4)
        return self.content[begin : self.at].view("<f4").reshape(rows, columns)

    def flag(self) -> bool:
        """A byte that is true or false."""
        (found,) = self.numbers(_FLAG)
        if found > 1:
            self.damaged()
        return bool(found)

    def skip_quantised(self, columns: int) -> int:
        """The number of rows of a quantised matrix, which is taken."""
        has_norms = self.flag()
        rows, found = self.numbers(_SHAPE)
        (codes,) = self.numbers(_CODES)
        if found != columns or rows < 0:
            self.damaged()
        self.skip(codes)
        if codes != rows * self._skip_quantiser(columns):
            self.damaged()
        if has_norms:
            self.skip(rows)
            self._skip_quantiser(1)
        return int(rows)

    def pruned(self, pairs: int) -> int:
        """The rows of runs that a pruned dictionary needs, whose pairs are taken."""
        begin = self.skip(pairs * _PAIR.itemsize)
        rows = self.content[begin : self.at].view(_PAIR)["row"]
        if (rows < 0).any():
            self.damaged()
        return int(rows.max(initial=-1)) + 1

    def dictionary(self, words: int, labels: int, loss: str) -> tuple[Column, tuple[str, ...]]:
        """The words, and the labels without their prefix."""
        begins = np.empty(words + labels, np.int64)
        ends = np.empty_like(begins)
        types = np.empty(words + labels, np.uint8)
        self.skip(int(_scan(self.content, self.at, begins, ends, types)) - self.at)
        if (types[:words] != _WORD).any() or (types[words:] != _LABEL).any():
            self.damaged()
        spans = list(zip(begins[words:].tolist(), ends[words:].tolist(), strict=True))
        if loss == "hs":
            self._check_counts([end + 1 for _, end in spans])
        names = [
            self.content[begin:end].tobytes().decode("utf-8", "backslashreplace").removeprefix(PREFIX)
            for begin, end in spans
        ]
        if len(set(names)) < len(names):
            raise UserError(f"{self.path}: a fastText model that has a label twice; save the model again")
        return gathered(self.content, begins[:words], ends[:words]), tuple(names)

    def _check_counts(self, places: list[int]) -> None:
        """The counts of labels are such that a tree can be built of them, and not a list."""
        counts = [int.from_bytes(self.content[at : at + 8].tobytes(), "little", signed=True) for at in places]
        if min(counts) < 1 or sum(counts) >= _MOST_COUNTED:
            self.damaged()

    def damaged(self) -> NoReturn:
        raise UserError(f"{self.path}: a damaged fastText model (impossible sizes); copy or download it again")

    def _skip_quantiser(self, columns: int) -> int:
        """The number of codes that a row of `columns` numbers has."""
        dim, parts, length, last = self.numbers(_QUANTISER)
        if dim != columns or min(parts, length, last) < 1 or last > length or (parts - 1) * length + last != dim:
            self.damaged()
        self.skip(dim * _CENTROIDS * 4)
        return int(parts)


def _read(reader: _Reader) -> FastTextModel:
    _check_start(reader)
    header = reader.numbers(_HEADER)
    version, dim = header[1:3]
    word_ngrams, loss, kind, buckets, min_chars, max_chars = header[7:13]
    entries, words, labels, _, pruned = header[15:]
    if kind != _SUPERVISED or labels == 0:
        raise UserError(f"{reader.path}: an unsupervised fastText model, which has no labels; give a classifier")
    if min(words, labels, buckets, dim - 1) < 0 or words + labels != entries or loss not in _LOSSES or pruned < -1:
        reader.damaged()
    max_chars = 0 if version == _WITHOUT_CHARS else max_chars
    if min(min_chars, max_chars) < 0:  # which the library takes for 2**64 - 1
        reader.damaged()
    _check_runs(reader, word_ngrams, max_chars, buckets)
    reader.require(entries * _LEAST_ENTRY)
    column, names = reader.dictionary(words, labels, _LOSSES[loss])
    runs = buckets if pruned < 0 else reader.pruned(pruned)
    quantised = reader.flag()
    input, output = _matrices(reader, quantised, pruned, words + runs, labels, dim)
    return FastTextModel(
        words=column,
        labels=names,
        input=input,
        output=output,
        loss=_LOSSES[loss],
        word_ngrams=word_ngrams,
        buckets=buckets,
        min_chars=min_chars,
        max_chars=max_chars,
        quantised=quantised,
    )


def _check_start(reader: _Reader) -> None:
    start = reader.content[: _START.size].tobytes()
    magic, version = _START.unpack(start) if len(start) == _START.size else (0, 0)
    if magic != MAGIC:
        raise UserError(f"{reader.path}: no fastText model; give the .bin or .ftz file of a classifier")
    if version not in _VERSIONS:
        raise UserError(f"{reader.path}: version {version} of fastText's format is unknown; give one of fastText 0.9")


def _check_runs(reader: _Reader, word_ngrams: int, max_chars: int, buckets: int) -> None:
    """Runs are of such lengths as can be looked up, and there are buckets for them."""
    if word_ngrams > MOST_WORD_NGRAMS or max_chars > MOST_CHARS:
        raise UserError(
            f"{reader.path}: a fastText model of runs of {word_ngrams} words or {max_chars} characters; give one of "
            f"{MOST_WORD_NGRAMS} words and {MOST_CHARS} characters at most"
        )
    if not buckets and (word_ngrams > 1 or max_chars > 0):
        reader.damaged()


def _matrices(reader: _Reader, quantised: bool, pruned: int, rows: int, labels: int, dim: int) -> tuple[Array, Array]:
    """The input and the output; without rows where the input is quantised, but their sizes are checked all the same.

    rows: how many the dictionary needs.
    """
    if not quantised:
        if pruned >= 0:
            reader.damaged()
        input = reader.matrix(rows, dim)
        reader.skip(_FLAG.size)
        return input, reader.matrix(labels, dim)
    if reader.skip_quantised(dim) < rows:
        reader.damaged()
    if not reader.flag():
        reader.matrix(labels, dim)
    elif reader.skip_quantised(dim) != labels:
        reader.damaged()
    return np.empty((0, dim), np.float32), np.empty((0, dim), np.float32)


@kernel
def _scan(content: Array, at: int, begins: Array, ends: Array, types: Array) -> int:
    """Find the dictionary's entries; returns where they end, or one past the file where it ends first."""
    size = len(content)
    for entry in range(len(begins)):
        begins[entry] = at
        while at < size and content[at] != 0:
            at += 1
        ends[entry] = at
        at += _LEAST_ENTRY
        if at > size:
            return size + 1
        types[entry] = content[at - 1]
    return at
