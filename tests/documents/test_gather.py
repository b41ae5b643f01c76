"""Parts of a buffer against Python's slices."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.documents.columns import PAD, Kind
from dvsel.documents.gather import gathered


@settings(deadline=None)
@given(st.binary(max_size=200), st.data())
def test_gathering_is_slicing(content: bytes, data: st.DataObject) -> None:
    place = st.integers(0, len(content))
    spans = data.draw(st.lists(st.tuples(place, place).map(sorted), max_size=20))
    begins, ends = np.array(spans, np.int64).reshape(-1, 2).T
    column = gathered(np.frombuffer(content, np.uint8), begins, ends)
    assert [column[row] for row in range(len(column))] == [content[begin:end] for begin, end in spans]
    assert len(column.data) == column.offsets[-1] + PAD
    assert column.kind.tolist() == [Kind.STRING] * len(spans)
