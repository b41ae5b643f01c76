"""Reading model files against the library, and files that are none."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.errors import UserError
from dvsel.fasttext.model import MAGIC, FastTextModel, read_model, why_not_foldable
from fasttext_models import quantise, train

TEXTS = {
    "hq": [f"good word{n} café слово 字 w{n % 7}" for n in range(300)],
    "cc": [f"bad word{n} 字 w{n % 5}" for n in range(300)],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "words": {"loss": "ova"},
    "pairs": {"wordNgrams": 2, "bucket": 1000},
    "chars": {"minn": 2, "maxn": 4, "bucket": 500},
    "sampling": {"loss": "ns"},
    "tree": {"loss": "hs"},
}
QUANTISED: dict[str, dict[str, Any]] = {
    "quantised": {},
    "output too": {"qout": True, "qnorm": True},
    "pruned": {"cutoff": 300},
}
MANY = {f"label{n}": [f"word{n} w{n % 7}"] for n in range(300)}  # what a quantised output takes at least


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def pairs(folder: Path) -> Path:
    return train(folder / "damaged.bin", TEXTS, **OPTIONS["pairs"])


def words_of(model: FastTextModel) -> list[bytes]:
    return [model.words[row] for row in range(len(model.words))]


@pytest.mark.parametrize("name", OPTIONS)
def test_all_parts_are_those_of_the_library(folder: Path, name: str) -> None:
    path = train(folder / f"{name}.bin", TEXTS, **OPTIONS[name])
    model = read_model(str(path))
    import fasttext

    library = fasttext.load_model(str(path))
    arguments = library.f.getArgs()
    assert words_of(model) == [word.encode() for word in library.get_words()]
    assert b"</s>" in words_of(model)
    assert model.labels == tuple(label.removeprefix("__label__") for label in library.get_labels())
    assert np.array_equal(model.input, np.array(library.f.getInputMatrix()))
    assert np.array_equal(model.output, np.array(library.f.getOutputMatrix()))
    assert model.loss == arguments.loss.name
    assert (model.word_ngrams, model.buckets) == (arguments.wordNgrams, arguments.bucket)
    assert (model.min_chars, model.max_chars) == (arguments.minn, arguments.maxn)
    assert why_not_foldable(model) == ("its loss is hierarchical softmax" if name == "tree" else "")


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_models_show_their_labels(folder: Path, name: str) -> None:
    texts = MANY if name == "output too" else TEXTS
    path = quantise(train(folder / f"{name}.bin", texts, wordNgrams=2, bucket=1000), **QUANTISED[name])
    model = read_model(str(path))
    assert set(model.labels) == set(texts)
    assert model.input.shape == model.output.shape == (0, 16)
    assert why_not_foldable(model) == "its matrices are quantised"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="truncated"):
        read_model(str(path))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no fastText model"),
        (b"MAG", "no fastText model"),
        (b"2 3\nword 0.1 0.2 0.3\n", "no fastText model"),
        (struct.pack("<2i", MAGIC, 13), "version 13 of fastText's format is unknown"),
        (struct.pack("<2i", MAGIC, 12), "truncated"),
    ],
)
def test_what_is_no_model(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"model.bin: .*{complaint}.*; "):
        read_model(str(path))


def test_a_remote_file(pairs: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/models/pairs.bin", pairs.read_bytes())
    assert np.array_equal(read_model("memory://models/pairs.bin").input, read_model(str(pairs)).input)
    with pytest.raises(UserError, match="cannot be read"):
        read_model("memory://models/missing.bin")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.bin", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            read_model(str(path))


def test_word_vectors_have_no_labels(folder: Path) -> None:
    import fasttext

    train(folder / "vectors.bin", TEXTS)
    path = folder / "unsupervised.bin"
    fasttext.train_unsupervised(str(folder / "vectors.txt"), dim=4, epoch=1, thread=12, verbose=0).save_model(str(path))
    with pytest.raises(UserError, match="unsupervised"):
        read_model(str(path))


def test_older_models_have_no_character_ngrams(folder: Path) -> None:
    content = bytearray(train(folder / "older.bin", TEXTS, **OPTIONS["chars"]).read_bytes())
    content[4] = 11
    path = folder / "version 11.bin"
    path.write_bytes(content)
    assert read_model(str(path)).max_chars == 0


# Where the header's numbers lie, int32 but for the last two.
DIM, WORD_NGRAMS, LOSS, BUCKETS, MIN_CHARS, MAX_CHARS = 8, 28, 32, 40, 44, 48
ENTRIES, WORDS_, LABELS, PRUNED = 64, 68, 72, 84


@pytest.mark.parametrize(
    ("place", "number", "complaint"),
    [
        *((DIM, number, "damaged") for number in (0, -1, 17)),
        (DIM, 2**31 - 1, "damaged"),
        *((WORD_NGRAMS, number, "of runs of .* words") for number in (65, 2**31 - 1)),
        *((MAX_CHARS, number, "of runs of .* characters") for number in (65, 2**31 - 1)),
        *((place, -1, "damaged") for place in (MIN_CHARS, MAX_CHARS, BUCKETS, LOSS, ENTRIES, WORDS_, LABELS)),
        (BUCKETS, 0, "damaged"),
        (BUCKETS, 2**31 - 1, "damaged"),
        (LOSS, 9, "damaged"),
        (ENTRIES, 2**31 - 1, "damaged"),
        (LABELS, 2**31 - 1, "damaged"),
    ],
)
def test_hostile_numbers(pairs: Path, place: int, number: int, complaint: str) -> None:
    """Told at once, whatever they would have to be held in."""
    path = pairs.with_name("hostile.bin")
    content = bytearray(pairs.read_bytes())
    struct.pack_into("<i", content, place, number)
    path.write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        read_model(str(path))


@pytest.mark.parametrize(
    ("words", "pruned"), [(2**31 - 4, -1), (10**6, -1), (None, 2**62), (None, 2**31), (None, -2), (None, 0)]
)
def test_more_than_the_file_holds(pairs: Path, words: int | None, pruned: int) -> None:
    path = pairs.with_name("hostile.bin")
    content = bytearray(pairs.read_bytes())
    if words is not None:
        struct.pack_into("<3i", content, ENTRIES, words + 2, words, 2)
    struct.pack_into("<q", content, PRUNED, pruned)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"truncated|damaged"):
        read_model(str(path))


def test_a_label_given_twice_is_refused(pairs: Path) -> None:
    path = pairs.with_name("twice.bin")
    path.write_bytes(pairs.read_bytes().replace(b"__label__cc", b"__label__hq"))
    with pytest.raises(UserError, match="a label twice"):
        read_model(str(path))


@pytest.mark.parametrize("count", [0, -1, 10**15, 2**63 - 1])
def test_counts_that_make_no_tree(folder: Path, count: int) -> None:
    """The library builds one by them, and a list of labels instead would be as deep as there are labels."""
    content = bytearray(train(folder / "tree of counts.bin", TEXTS, loss="hs").read_bytes())
    struct.pack_into("<q", content, content.index(b"__label__hq\0") + len(b"__label__hq\0"), count)
    path = folder / "counts.bin"
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_model(str(path))


def test_quantisers_are_of_the_matrix(folder: Path) -> None:
    """Each number of them is one that the library would go by."""
    path = quantise(train(folder / "quantiser.bin", TEXTS, wordNgrams=2, bucket=1000))
    content = path.read_bytes()
    (at,) = [at for at in range(len(content)) if content[at : at + 16] == struct.pack("<4i", 16, 8, 2, 2)]
    for place, number in [(0, 15), (4, 7), (4, 2**31 - 1), (8, 0), (8, -2), (12, 0), (12, 3)]:
        damaged = bytearray(content)
        struct.pack_into("<i", damaged, at + place, number)
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"damaged|truncated"):
            read_model(str(path))


@settings(deadline=None)
@given(st.data())
def test_every_truncation_is_told(pairs: Path, data: st.DataObject) -> None:
    content = pairs.read_bytes()
    path = pairs.with_name("cut.bin")
    path.write_bytes(content[: data.draw(st.integers(8, len(content) - 1))])
    with pytest.raises(UserError, match="truncated"):
        read_model(str(path))


@settings(deadline=None)
@given(st.integers(0, 2000), st.binary(min_size=1, max_size=8))
def test_damage_never_crashes(pairs: Path, at: int, garbage: bytes) -> None:
    content = bytearray(pairs.read_bytes())
    content[at : at + len(garbage)] = garbage
    path = pairs.with_name("garbage.bin")
    path.write_bytes(content)
    try:
        model = read_model(str(path))
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert len(model.input) == len(model.words) + model.buckets
