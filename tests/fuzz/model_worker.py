"""fastText's model files, sound and damaged: FOLDER SEED COUNT.

A sound one scores as the library does, whatever its options. A damaged one gives scores, or one UserError of one line,
and the library, which takes what it is given, is given nothing that it would write past its memory for.
"""

from __future__ import annotations

import random
import struct
import sys
from dataclasses import replace
from pathlib import Path

import fuzz_cases
import numpy as np

from dvsel.documents.columns import Batch, Column
from dvsel.errors import UserError
from dvsel.fasttext.folded import Folded, fold
from dvsel.fasttext.model import read_model
from dvsel.scorers.fasttext import FastText
from fasttext_definition import SHAPES, WORDS, Shape, file_of, made
from fasttext_models import ODD_TEXTS, outputs, quantise, train

FOLDER = Path(sys.argv[1])
TEXTS = [text[:3000] for text in ODD_TEXTS]
LONG = [b"good a unknown " * 300, b"a \xff " * 700]
NUMBERS = [0, -1, 1, 2, 3, 4, 5, 11, 12, 63, 64, 65, 1000, 2**16, 2**30, 2**31 - 1, -(2**31)]
LONGS = [*NUMBERS, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63)]
HEADER = 14 * 4 + 8 + 3 * 4 + 2 * 8


def sound_files() -> list[bytes]:
    """Of every kind: folded or not, quantised with norms and pruned, of few labels and many."""
    sound = [file_of(made(shape, dim)) for shape, dim in zip(SHAPES, [1, 2] * len(SHAPES), strict=False)]
    sound += [file_of(replace(made(Shape(2, 50, 1, 3), 3), loss=loss)) for loss in ("hs", "ova", "ns")]
    texts = {f"l{label}": [f"word{label} w{label % 7} café"] * 2 for label in range(300)}
    for number, options in enumerate([{}, {"qnorm": True, "qout": True, "cutoff": 300}]):
        path = train(FOLDER / f"{number}.bin", texts, dim=5, wordNgrams=2, bucket=100, minn=number, maxn=2 * number)
        sound.append(quantise(path, **options).read_bytes())
    return [one for one in sound if len(one) < 200_000]


def damaged(draw: random.Random, content: bytearray) -> bytearray:
    for _ in range(draw.choice([1, 1, 2, 3])):
        at = draw.randrange(max(len(content), 1))
        match draw.randrange(8):
            case 0 | 1:
                place = 4 * draw.randrange(14)
                content[place : place + 4] = struct.pack("<i", draw.choice(NUMBERS))
            case 2:
                place = draw.choice([64, 68, 72])
                content[place : place + 4] = struct.pack("<i", draw.choice(NUMBERS))
            case 3:
                place = draw.choice([76, 84])
                content[place : place + 8] = struct.pack("<q", draw.choice(LONGS))
            case 4:
                del content[at:]
            case 5:
                width = draw.choice([1, 4, 8])
                number = draw.choice(LONGS) if width == 8 else draw.choice(NUMBERS)
                content[at : at + width] = (number % 2 ** (8 * width)).to_bytes(width, "little")
            case 6:
                end = draw.randrange(len(content) + 1)
                content[at:end] = content[end : end + draw.randrange(100)]
            case 7:  # in the dictionary, or in what follows it
                place = draw.randrange(HEADER, max(min(len(content), HEADER + 400), HEADER + 1))
                content[place : place + 1] = draw.choice([b"\0", b"\1", b"_", draw.randbytes(1)])
    return content


def damaged_file(draw: random.Random) -> str:
    path = FOLDER / "damaged.bin"
    path.write_bytes(damaged(draw, bytearray(draw.choice(SOUND))))
    try:
        labels = read_model(str(path)).labels
        chosen = labels[0] if draw.random() < 0.7 else ""
        fitted = FastText(model=str(path), label=chosen, preprocess="space").fit([], {})
        scores = fitted.score(Batch(Column.of([*TEXTS, *LONG])))
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000, f"no line: {str(error)[:500]!r}"
        return "refused"
    assert scores.dtype == np.float32 and scores.shape == (len(TEXTS) + len(LONG),)
    return "scored"


def whole(draw: random.Random) -> str:
    shape = Shape(draw.randint(-1, 9), draw.choice([1, 7, 99, 1009]), draw.randint(0, 5), draw.randint(0, 7))
    words = draw.sample(WORDS, draw.randrange(1, len(WORDS) + 1))
    model = made(shape, draw.choice([1, 2, 3]), words)
    small = model.input % 5  # so that the library's sums, in float32, are exact too
    model = replace(model, input=small, loss=draw.choice(["softmax", "ova", "ns"]))
    path = FOLDER / "sound.bin"
    path.write_bytes(file_of(model))
    read = read_model(str(path))
    texts = [*draw.sample(TEXTS, 4), *LONG, draw.choice(words) * draw.randrange(600)]
    found = Folded(fold(read, read.output)).sums(Column.of(texts))
    theirs = outputs(path, texts)
    for column, label in enumerate(read.labels):
        there = ~np.isnan(found[:, column])  # the library has zeros for no feature
        np.testing.assert_allclose(found[there, column], theirs[label][there], rtol=1e-5, atol=1e-5)
        assert not theirs[label][~there].any()
    return "as the library"


def case(draw: random.Random) -> str:
    return (whole if draw.random() < 0.1 else damaged_file)(draw)


if __name__ == "__main__":
    SOUND = sound_files()
    for number in range(30):  # compile before the limit
        case(random.Random(number))
    fuzz_cases.run(case)
