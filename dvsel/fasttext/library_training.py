"""Train with the fastText library, in spite of its faults.

The library (0.9.3, its last release) fills the vectors of features with random numbers in ten parts, one a thread
(`DenseMatrix::uniform`): with fewer than ten threads the rest of the matrix is memory that nobody has set. At times
that is zeros, at times huge numbers or NaN, which it reports as "Encountered NaN" or not at all. So it runs with at
least `LEAST_THREADS` threads, whatever the machine has; the eleventh fills what ten equal parts leave over. Its
vectors are checked all the same.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dvsel.errors import UserError
from dvsel.fasttext.examples import LABELS, Examples, Training
from dvsel.fasttext.model import PREFIX, FastTextModel, read_model

LEAST_THREADS = 12

_SMALLEST, _LARGEST = 1e-30, 1e6
_ROWS = 1 << 14
_SPACES = rb"[ \t\n\v\f\r\0]"
_END = re.compile(rb"(?:^|(?<=%b))</s>(?:%b|$)" % (_SPACES, _SPACES))
_LABEL = re.compile(rb"(?:^|(?<=%b))%b[^ \t\n\v\f\r\0]*" % (_SPACES, PREFIX.encode()))


def train(examples: Examples, training: Training) -> FastTextModel:
    """Train on these documents.

    Raises UserError where the package is missing, where no word occurs `min_count` times, and where the library does
    not get through or leaves vectors unset.
    """
    with tempfile.TemporaryDirectory(prefix="dvsel-fasttext-") as folder:
        text, file = Path(folder, "documents.txt"), Path(folder, "model.bin")
        write_documents(examples, training, text)
        _fit(text, file, training)
        # POSIX keeps what is mapped after its name is gone.
        model = read_model(str(file))
    count = damaged_rows(model.input)
    if count:
        raise UserError(f"fasttext: the library left {count:,} vectors unset; train with --trainer dvsel")
    rows = [model.labels.index(label) for label in LABELS]
    return dataclasses.replace(model, labels=LABELS, output=model.output[rows])


def write_documents(examples: Examples, training: Training, path: Path) -> None:
    """Write a line for each document, its label first, in an order that depends on the documents alone.

    Words that would be labels are left out, and what follows a literal `</s>`, as in `vocabulary`.
    """
    with path.open("wb") as file:
        for document in examples.order(training.training_seed, 0).tolist():
            text = examples.text[int(examples.rows[document])].replace(b"\n", b" ")
            text = _LABEL.sub(b"", _END.split(text, maxsplit=1)[0])
            label = LABELS[0] if examples.positive[document] else LABELS[1]
            file.write(PREFIX.encode() + label.encode() + b" " + text + b"\n")


def damaged_rows(vectors: npt.NDArray[np.float32]) -> int:
    """Count rows that hold no trained vector: NaN, infinite or huge numbers, or nothing but (almost) zeros."""
    damaged = 0
    for first in range(0, len(vectors), _ROWS):
        peaks = np.abs(vectors[first : first + _ROWS]).max(axis=1)
        damaged += int(np.count_nonzero(~((peaks > _SMALLEST) & (peaks < _LARGEST))))
    return damaged


def _fit(text: Path, file: Path, training: Training) -> None:
    """Train on the lines of `text` and save to `file`; once more, with other threads, where it met unset memory."""
    threads = max(LEAST_THREADS, os.cpu_count() or 1)
    try:
        _run_library(text, file, training, threads)
    except RuntimeError:
        try:
            _run_library(text, file, training, 2 * threads)
        except RuntimeError as error:
            cause = str(error).rstrip(".")
            raise UserError(f"fasttext: the library stopped twice ({cause}); train with --trainer dvsel") from None


def _run_library(text: Path, file: Path, training: Training, threads: int) -> None:
    try:
        import fasttext
    except ImportError:
        remedy = "pip install 'dvsel[fasttext]', or train with --trainer dvsel"
        raise UserError(f"trainer fasttext: the package fasttext is missing; {remedy}") from None
    try:
        model = fasttext.train_supervised(
            input=str(text),
            dim=training.dim,
            wordNgrams=training.word_ngrams,
            bucket=training.buckets,
            epoch=training.epochs,
            lr=training.learning_rate,
            minCount=training.min_count,
            minn=training.min_chars,
            maxn=training.max_chars,
            seed=training.training_seed % 2**31,
            loss="softmax",
            thread=threads,
            verbose=0,
        )
    except ValueError as error:
        raise UserError(f"fasttext: {str(error).rstrip('.')}; lower min_count {training.min_count}") from None
    model.save_model(str(file))
