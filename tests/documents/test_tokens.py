"""Token counts: features against a plain count, the fit against known weights, exact counts against the tokenizer."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.documents.columns import Column, Kind
from dvsel.documents.tokens import (
    BUILT_IN,
    FEATURES,
    TokenCounter,
    count_features,
    errors,
    estimate,
    exact_counts,
    field_causes,
    fit_estimate,
    non_negative_fit,
)
from dvsel.errors import UserError

SENTENCES = [
    f"The {animal} number {number} jumps over {number * 7} lazy dogs,\n  and it isn't tired: {punctuation} café"
    for animal in ("fox", "elephant", "hummingbird", "ox")
    for number in (1, 22, 333, 4444, 55_555)
    for punctuation in ("!", "--", "(?)", "...")
]


def column(texts: Sequence[str]) -> Column:
    return Column.of([text.encode() for text in texts])


def counted(text: bytes) -> list[int]:
    """The features, a byte at a time."""
    letters, white = string.ascii_letters.encode(), bytes(range(33))
    before = [b"", *(text[at : at + 1] for at in range(len(text) - 1))]
    pairs = list(zip(before, (text[at : at + 1] for at in range(len(text))), strict=True)) if text else []
    is_letter = [byte in letters for _, byte in pairs]
    is_white = [byte in white for _, byte in pairs]
    digits = sum(byte in string.digits.encode() for _, byte in pairs)
    beyond = sum(byte >= b"\x80" for _, byte in pairs)
    return [
        sum(byte in letters and not (last and last in letters) for last, byte in pairs),
        sum(is_letter),
        digits,
        len(text) - sum(is_letter) - digits - sum(is_white) - beyond,
        sum(byte in white and (byte != b" " or bool(last and last in white)) for last, byte in pairs),
        beyond,
    ]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a byte-level BPE that was trained here."""
    tokenizers = pytest.importorskip("tokenizers")
    pytest.importorskip("transformers")
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator(SENTENCES, vocab_size=400, show_progress=False)
    folder = tmp_path_factory.mktemp("tokenizer")
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return str(folder)


def expected_counts(folder: str, texts: Sequence[str]) -> list[int]:
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    return [len(made.encode(text, add_special_tokens=False).ids) for text in texts]


# --- Features. ---

mixed = st.lists(st.sampled_from([" ", "  ", "\n", "\t", "a", "Zz", "word", "7", "42", ".", "é", "🙂", "\x7f", "\0"]))


@settings(deadline=None)
@given(st.lists(mixed.map("".join) | st.text(max_size=200), max_size=6))
def test_features_are_plain_counts(texts: list[str]) -> None:
    assert count_features(column(texts)).tolist() == [counted(text.encode()) for text in texts]


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 127, 128, 129, 1000])
@pytest.mark.parametrize("byte", list(b"a 5.\n\xff"))
def test_features_at_the_ends_of_vectors(byte: int, size: int) -> None:
    rows = [b"x", bytes([byte]) * size, b" " + bytes([byte]) * size + b"a"]
    assert count_features(Column.of(rows)).tolist() == [counted(row) for row in rows]


def test_features_have_a_name_each() -> None:
    assert count_features(column(["Two words, 1 dot.\n\n"]))[0].tolist() == [3, 11, 1, 2, 2, 0]
    assert len(FEATURES) == 6


# --- Estimates. ---


def test_an_estimate_is_at_least_one_token_for_a_text_and_none_for_no_text() -> None:
    counts = count_features(column(["", " ", "a", "word " * 1000]))
    assert estimate(counts, (0.0,) * 6).tolist() == [0, 0, 1, 1]
    assert estimate(counts, (1.0, 0, 0, 0, 0, 0)).tolist() == [0, 0, 1, 1000]


def test_the_fit_recovers_known_weights() -> None:
    random = np.random.default_rng(0)
    counts = random.integers(1, 500, (200, 6))
    weights = (0.9, 0.05, 0.0, 0.45, 0.5, 0.3)
    assert non_negative_fit(counts, counts @ np.array(weights)) == pytest.approx(weights, abs=1e-4)


def test_the_fit_is_the_best_without_negative_weights() -> None:
    """Against many steps of projected gradient descent, which must not come below."""
    random = np.random.default_rng(1)
    counts = random.integers(0, 50, (60, 6)) + 1
    exact = counts @ np.array([1.0, 0.5, -0.4, 0.2, -0.1, 0.3]) + 60 + random.normal(size=60)
    fitted = np.array(non_negative_fit(counts, exact))
    assert (fitted >= 0).all()
    scaled = counts / exact[:, None]
    weights = np.full(6, 0.1)
    step = 1 / np.linalg.norm(scaled, 2) ** 2
    for _ in range(5000):
        weights = np.maximum(weights - step * scaled.T @ (scaled @ weights - 1), 0)
    loss = np.square(scaled @ weights - 1).sum()
    assert np.square(scaled @ fitted - 1).sum() <= loss * (1 + 1e-4)


def test_errors_are_relative() -> None:
    counts = np.array([[10, 0, 0, 0, 0, 0], [20, 0, 0, 0, 0, 0], [30, 0, 0, 0, 0, 0]])
    total, document = errors(counts, np.array([10.0, 25.0, 40.0]), (1.0, 0, 0, 0, 0, 0))
    assert total == pytest.approx(60 / 75 - 1)
    assert document == pytest.approx(0.2)


def test_the_built_in_estimate_fits_ordinary_english() -> None:
    text = "The quick brown fox jumps over the lazy dog, and nobody knows why it does so every day. " * 20
    words = len(text.split())
    assert words < BUILT_IN.count(column([text]), None)[0] < 1.5 * words


# --- Exact counts. ---


def test_exact_counts_are_those_of_the_tokenizer(tokenizer: str) -> None:
    texts = [*SENTENCES, "", "unseen words: zygote, 漢字 🙂", "long " * 5000]
    counts = exact_counts(tokenizer, texts)
    assert counts.dtype == np.uint32
    assert counts.tolist() == expected_counts(tokenizer, texts)
    assert TokenCounter(tokenizer=tokenizer).count(column(texts), None).tolist() == counts.tolist()


def test_an_estimate_fitted_on_a_sample_is_near_the_exact_counts(tokenizer: str) -> None:
    counter = fit_estimate(SENTENCES, tokenizer)
    assert counter.tokenizer == tokenizer and len(counter.weights) == 6
    assert counter.measured == f"{len(SENTENCES) // 2} documents against {tokenizer}"
    exact = np.array(expected_counts(tokenizer, SENTENCES[1::2]), float)
    guess = counter.count(column(SENTENCES[1::2]), None).astype(float)
    assert counter.error_total == pytest.approx(guess.sum() / exact.sum() - 1)
    assert counter.error_document == pytest.approx(np.median(np.abs(guess / exact - 1)))
    assert abs(counter.error_total) < 0.05 and counter.error_document < 0.1


def test_a_sample_that_is_too_small_is_refused(tokenizer: str) -> None:
    with pytest.raises(UserError, match="the token sample holds 3 documents with tokens; it needs 12 or more"):
        fit_estimate([*SENTENCES[:3], "", ""], tokenizer)


def test_a_tokenizer_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(UserError, match=r"^tokenizer .*gone: .*; give a folder or a hub name$") as refused:
        exact_counts(str(tmp_path / "gone"), ["text"])
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_tokenizer_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"^tokenizer .*; give a folder or a hub name$"):
        exact_counts(str(tmp_path), ["text"])


# --- The documents' own counts. ---


def test_a_field_is_taken_as_it_is_and_the_rest_is_estimated() -> None:
    texts = ["one two three", "four five", "six", "seven eight"]
    own = Column.of([b"17", None, None, b"0"], [Kind.NUMBER, Kind.MISSING, Kind.NULL, Kind.NUMBER])
    estimated = BUILT_IN.count(column(texts), None)
    counter = TokenCounter(field="n", weights=BUILT_IN.weights)
    assert counter.count(column(texts), own).tolist() == [17, estimated[1], estimated[2], 0]


def test_the_largest_count() -> None:
    own = Column.of([b"4294967295"], [Kind.NUMBER])
    assert BUILT_IN.count(column(["x"]), own).tolist() == [4_294_967_295]


NO_COUNTS = [
    (b"3.5", Kind.NUMBER),
    (b"-1", Kind.NUMBER),
    (b"1e3", Kind.NUMBER),
    (b"17", Kind.STRING),
    (b"true", Kind.BOOL),
    (b"[1]", Kind.OTHER),
]


@pytest.mark.parametrize(("value", "kind"), NO_COUNTS)
def test_what_is_no_count_has_a_cause(value: bytes, kind: Kind) -> None:
    own = Column.of([b"5", value, None], [Kind.NUMBER, kind, Kind.MISSING])
    assert field_causes(own) == {1: f"token count is {value.decode()}, not a whole number"}


@pytest.mark.parametrize("value", [b"4294967296", b"9" * 5000])
def test_a_count_beyond_the_largest_is_told_the_limit(value: bytes) -> None:
    says = f"token count is {value[:40].decode()}, more than 4,294,967,295, the most that a document can have"
    assert field_causes(Column.of([value], [Kind.NUMBER])) == {0: says}


@pytest.mark.parametrize(("value", "kind"), NO_COUNTS)
def test_what_is_no_count_does_not_stop_the_counting_of_others(value: bytes, kind: Kind) -> None:
    """Lines with such a count are skipped with --on-bad-line skip, and the batch goes on."""
    own = Column.of([b"5", value], [Kind.NUMBER, kind])
    assert BUILT_IN.count(column(["x", "y"]), own)[0] == 5


@pytest.mark.parametrize(
    ("counter", "says"),
    [
        (TokenCounter(tokenizer="gpt2"), "counted by gpt2"),
        (TokenCounter(field="n", tokenizer="gpt2"), "field 'n', where a document lacks it counted by gpt2"),
        (
            TokenCounter("", "gpt2", (1.0,) * 6, 0.01, 0.05, "50 documents against gpt2"),
            "estimated (error on 50 documents against gpt2: total +1.0%, a document 5.0%)",
        ),
    ],
)
def test_the_summary_says_how_tokens_were_counted(counter: TokenCounter, says: str) -> None:
    assert counter.method == says
