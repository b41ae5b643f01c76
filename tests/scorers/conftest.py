"""Small models that the tests of several scorers share; a module that needs others has fixtures of its own."""

from __future__ import annotations

from typing import Any

import pytest

import language_models


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return language_models.build(tmp_path_factory.mktemp("models") / "llama", hidden=16, layers=1, window=64)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Of one shape, as checkpoints of a run are."""
    folder = tmp_path_factory.mktemp("models")
    return tuple(
        language_models.build(folder / f"seed{seed}", hidden=16, layers=1, window=64, seed=seed) for seed in range(2)
    )


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("classifiers")
    more: dict[str, Any] = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    return tuple(
        language_models.build(
            folder / f"seed{seed}", "bert", hidden=16, layers=1, seed=seed, task="SequenceClassification", **more
        )
        for seed in range(2)
    )
