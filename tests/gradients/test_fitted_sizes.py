"""Fitted files whose arrays go together, but not with the model: told before they are used."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("peft")

import fitted_files
from dvsel.errors import UserError
from dvsel.runs import fitted_files as storage
from dvsel.schema import packed
from dvsel.scorers import Fitted

Array = np.ndarray[Any, Any]


def _fewer_rows(name: str) -> Any:
    return lambda arrays: {name: arrays[name][:-1]}


def _fewer_weights(arrays: dict[str, Array]) -> dict[str, Array]:
    return {name: arrays[name][..., :-2] for name in ("adapter", "first", "second", "tasks")}


def _other_layers(arrays: dict[str, Array]) -> dict[str, Array]:
    return {"layers": packed([f"no.{number}" for number in range(len(arrays["ranks"][0]))])}


CHANGES = {
    "influence": (_fewer_rows("left.0.0"), "layer .*q_proj: has 16 inputs and 32 outputs, and 16 and 31 in the fitted"),
    "tracin": (_other_layers, "has no layer 'no.0'; fit again"),
    "mirror": (_fewer_rows("right.0"), "layer .*q_proj: has 16 inputs and 32 outputs, and 15 and 32 in the fitted"),
    "self-influence": (
        lambda arrays: {"inputs.0": arrays["inputs.0"][1:, 1:]},
        r"takes inputs of shape \(16, 16\), and the fitted file has \(15, 15\); fit again",
    ),
    "less": (_fewer_weights, "an adapter of it has .* weights, and the fitted file .*; fit again"),
}


@pytest.fixture(scope="module")
def makers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return fitted_files.makers(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("name", CHANGES)
def test_arrays_of_another_model(name: str, makers: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: Fitted = makers[name]()
    change, complaint = CHANGES[name]
    made.arrays |= change(made.arrays)
    loaded = storage.from_bytes(storage.to_bytes(made), "file")
    with pytest.raises(UserError, match=complaint):
        loaded.score(fitted_files.batch(fitted_files.TEXTS))
