from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dvsel.errors import UserError
from dvsel.selection import dedup
from dvsel.selection.dedup import TextChunk, duplicates

Row = tuple[int, int, bool]  # text, tie, eligible


def chunks_of(rows: list[Row], size: int) -> Iterator[TextChunk]:
    for first in range(0, len(rows), size):
        text, tie, eligible = zip(*rows[first : first + size], strict=True)
        yield TextChunk(np.array(text, np.uint64), np.array(tie, np.uint64), np.array(eligible, np.bool_))


def dropped(rows: list[Row], folder: Path, size: int = 100) -> list[bool]:
    with duplicates(chunks_of(rows, size), len(rows), folder) as drops:
        found: list[bool] = drops[0 : len(rows)].tolist()
    return found


def expected(rows: list[Row]) -> list[bool]:
    stays: dict[int, int] = {}
    for position, (text, tie, eligible) in enumerate(rows):
        if eligible and (text not in stays or tie > rows[stays[text]][1]):
            stays[text] = position
    return [eligible and stays[text] != position for position, (text, _, eligible) in enumerate(rows)]


def test_the_highest_tie_stays_then_the_earliest(tmp_path: Path) -> None:
    rows = [(7, 1, True), (7, 3, True), (7, 3, True), (8, 0, True), (7, 9, False)]
    assert dropped(rows, tmp_path) == [True, False, True, False, False]


def test_no_rows(tmp_path: Path) -> None:
    assert dropped([], tmp_path) == []


low, high = st.integers(0, 5), st.integers(0, 5).map(lambda bits: bits << 61)
hashes = st.one_of(low, high, st.integers(0, 2**64 - 1))
rows_of_few_texts = st.lists(st.tuples(hashes, st.integers(0, 3), st.booleans()), max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows_of_few_texts, size=st.integers(1, 20), buffered=st.integers(1, 20))
def test_as_a_dict_does_it(
    rows: list[Row], size: int, buffered: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dedup, "BUFFERED", buffered)
    assert dropped(rows, tmp_path, size) == expected(rows)
    assert list(tmp_path.iterdir()) == []


def test_a_million_rows_through_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "BUFFERED", 1 << 16)
    random = np.random.default_rng(0)
    texts = random.integers(0, 2**64, 300_000, dtype=np.uint64)
    text, tie = random.choice(texts, 1_000_000), random.integers(0, 2**64, 1_000_000, dtype=np.uint64)
    everything = TextChunk(text, tie, np.ones(len(text), np.bool_))
    with duplicates([everything], len(text), tmp_path) as drops:
        assert drops[0:1_000_000].sum() == len(text) - len(np.unique(text))
        kept = ~drops[0:1_000_000]
    best = np.lexsort((tie, text))
    last_of_each = best[np.append(text[best][1:] != text[best][:-1], True)]
    assert np.array_equal(np.flatnonzero(kept), np.sort(last_of_each))


def test_any_range_of_rows_can_be_read(tmp_path: Path) -> None:
    rows = [(number % 7, number, True) for number in range(50)]
    with duplicates(chunks_of(rows, 50), len(rows), tmp_path) as drops:
        for first in range(51):
            for last in range(first, 51):
                assert drops[first:last].tolist() == expected(rows)[first:last]


def test_one_text_many_times_fills_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "BUFFERED", 1000)
    spilled: list[int] = []
    settle = dedup._Spill.settle
    monkeypatch.setattr(
        dedup._Spill,
        "settle",
        lambda self: (
            spilled.extend(path.stat().st_size for path in self._folder.glob("rows-*")),  # type: ignore[func-returns-value]
            settle(self),
        ),
    )
    rows = [(42, number, True) for number in range(20_000)]
    assert sum(dropped(rows, tmp_path, size=500)) == 19_999
    assert sum(spilled) == 20 * 24


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_full_disk_is_told(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match=r"cannot write temporary files .*No space left"):
        dropped([(1, 1, True)] * size, tmp_path)
