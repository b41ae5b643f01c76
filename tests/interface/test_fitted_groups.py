"""A fitted scorer's groups and shares: given to it by a fit, kept in its arrays, read from them again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from dvsel.errors import UserError
from dvsel.runs import fitted_files
from dvsel.schema import GROUPS, check
from dvsel.scorers import Fitted
from dvsel.scorers.dsir import DSIR


def test_they_are_arrays_of_these_names() -> None:
    fitted = Fitted(DSIR(), {}, groups=("code", "café"), shares=(0.25, 0.75))

    assert json.loads(fitted.arrays["groups"].tobytes()) == ["code", "café"]
    assert fitted.arrays["groups"].dtype == np.uint8
    assert fitted.arrays["shares"].dtype == np.float64
    check(fitted.arrays, GROUPS)
    again = Fitted(DSIR(), fitted.arrays)
    assert (again.groups, again.shares) == (fitted.groups, fitted.shares) == (("code", "café"), (0.25, 0.75))


def test_without_groups_there_is_one_score_and_no_array() -> None:
    fitted = Fitted(DSIR(), {"weights": np.ones(2)})
    assert (fitted.groups, fitted.shares, list(fitted.arrays)) == (("",), (1.0,), ["weights"])


def test_groups_without_shares_share_alike() -> None:
    assert Fitted(DSIR(), {}, groups=("a", "b")).shares == (0.5, 0.5)


def test_a_class_may_state_them_itself() -> None:
    class Stated(Fitted):
        groups = ("a", "b")
        shares = (0.9, 0.1)

    assert (Stated(DSIR(), {}).groups, Stated(DSIR(), {}).shares) == (("a", "b"), (0.9, 0.1))


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"groups": np.frombuffer(b"[1]", np.uint8)}, "not a list of names"),
        ({"shares": np.array([0.5])}, "its shares do not sum to 1"),
        ({"shares": np.array([0.5, 0.5])}, "its shares are not one for each group"),
    ],
)
def test_of_a_class_without_a_schema_they_are_checked_too(
    arrays: Mapping[str, Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DSIR, "fitted", Fitted)
    content = fitted_files.to_bytes(Fitted(DSIR(), arrays))
    with pytest.raises(UserError, match=f"file: no fit that can be used .{complaint}"):
        fitted_files.from_bytes(content, "file")
