"""Models of every kind, each built once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dvsel.language.models import Model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    """Use one thread in every module here."""


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Model]:
    """A model of `gradient_truth.MODELS`, which must not be changed."""
    import gradient_truth

    built: dict[Any, Model] = {}

    def build(name: str = "llama", dtype: Any = torch.float64) -> Model:
        key = name, dtype
        if key not in built:
            built[key] = gradient_truth.build(tmp_path_factory.mktemp("model"), name, dtype)
        return built[key]

    return build
