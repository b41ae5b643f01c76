"""Pytest hooks that fail the suite when a test leaves something in the folder that the tests were started in.

What is found is reported by the first test that ends after it came. Under pytest-xdist each worker reports it, and the
test that does need not be the one that left it; so the message does not accuse.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

_CACHES = frozenset({".pytest_cache", ".hypothesis", "__pycache__", ".ruff_cache", ".mypy_cache"})
_COVERAGE = ".coverage"  # beginning of the names of its data files: one a process, joined at the end
_SEEN = pytest.StashKey[tuple[Path, set[str]]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    folder = Path.cwd()
    session.stash[_SEEN] = folder, _names(folder)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    yield  # fixtures of the module, too, have cleared away what is theirs to clear
    folder, seen = item.session.stash[_SEEN]
    left = _names(folder) - seen
    seen |= left
    if left:
        names = ", ".join(sorted(left))
        pytest.fail(f"{names}: in {folder} since a test; it must write to tmp_path instead", pytrace=False)


def _names(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir() if not one.name.startswith(_COVERAGE)} - _CACHES
