"""Preparing texts against the Python expressions that define it."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.documents.columns import Column
from dvsel.fasttext import MODES
from dvsel.fasttext.text import prepare
from fasttext_models import real_texts

TRUTH = {
    "space": lambda text: text.replace("\n", " "),
    "dclm": lambda text: " ".join(text.strip().splitlines()),
    "datatrove": lambda text: text.strip().replace("\n", ""),
}
WHITE = [c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace() or len(f"a{c}b".splitlines()) > 1]
ODD = st.one_of(
    st.sampled_from([*WHITE, "\r\n", "\x80", "\u2027", "\u202a", "x" * 70]), st.characters(exclude_categories=["Cs"])
)
BYTES = st.sampled_from(
    [bytes([byte]) for byte in (0xC2, 0x85, 0xA0, 0xE2, 0x80, 0xA8, 0xE3, 0xE1, 0x9A)] + [b"a", b"\n", b" "]
)


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def check(texts: list[str]) -> None:
    for mode in MODES:
        column = prepare(Column.of([encode(text) for text in texts]), mode)
        assert [column[row] for row in range(len(column))] == [encode(TRUTH[mode](text)) for text in texts]  # type: ignore[no-untyped-call]


@settings(deadline=None)  # the first call may compile
@given(st.lists(st.lists(ODD).map("".join)))
def test_any_text(texts: list[str]) -> None:
    check(texts)


@settings(deadline=None)
@given(st.lists(st.lists(BYTES).map(b"".join)))
def test_bytes_that_are_no_utf8_stay(rows: list[bytes]) -> None:
    check([row.decode("utf-8", "surrogateescape") for row in rows])


def test_real_text(shared_data: Path) -> None:
    check([text for texts in real_texts(shared_data / "pool", 20).values() for text in texts])


def test_line_ends_by_mode() -> None:
    text = Column.of([" one\r\ntwo\n\nthree\u2028 ".encode()])
    assert {mode: prepare(text, mode)[0].decode() for mode in MODES} == {
        "space": " one\r two  three\u2028 ",
        "dclm": "one two  three",
        "datatrove": "one\rtwothree",
    }


def test_kinds_and_spare_bytes_stay() -> None:
    column = Column.of([b"a\n", None])
    for mode in MODES:
        prepared = prepare(column, mode)
        assert prepared.kind.tolist() == column.kind.tolist()
        assert len(prepared.data) >= prepared.offsets[-1] + 64
        assert len(prepare(Column.of([]), mode)) == 0
