"""Ctrl-C in the middle of an import."""

from __future__ import annotations

import importlib
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dvsel.cli.interrupts import after_imports

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")

INTERRUPTED = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
except BaseException:
    dropped = True
done = True
"""


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def wait() -> None:
    """Sleep, to be woken by the interrupt."""
    time.sleep(5)
    raise AssertionError("nothing came")


def test_an_import_comes_to_its_end_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "interrupted_import.py").write_text(INTERRUPTED)
    monkeypatch.syspath_prepend(tmp_path)
    with after_imports(), pytest.raises(KeyboardInterrupt):
        importlib.import_module("interrupted_import")
        wait()
    imported = sys.modules["interrupted_import"]
    assert imported.done and not hasattr(imported, "dropped")


def test_without_it_python_may_drop_the_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dropping_import.py").write_text(INTERRUPTED)
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.import_module("dropping_import").dropped


def test_elsewhere_it_is_raised_at_once() -> None:
    with after_imports(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_no_timer_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "last_import.py").write_text(INTERRUPTED)
    monkeypatch.syspath_prepend(tmp_path)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
    with suppress(KeyboardInterrupt), after_imports():
        importlib.import_module("last_import")
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)) == handlers


@pytest.mark.parametrize("other", [signal.SIG_IGN, print])
def test_another_handler_stays(other: object) -> None:
    signal.signal(signal.SIGINT, other)  # type: ignore[arg-type]
    with after_imports():
        assert signal.getsignal(signal.SIGINT) is other
