"""Fixtures for places and shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from dvsel.shards import files


@pytest.fixture(params=["local", "file", "memory"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty folder of each sort of place."""
    if request.param == "memory":
        url = f"memory://{uuid4().hex}"
        yield url
        files.remove(url)
    else:
        yield str(tmp_path) if request.param == "local" else f"file://{tmp_path}"
