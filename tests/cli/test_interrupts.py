"""Ctrl-C at any moment: 130, soon, and nobody left."""

from __future__ import annotations

import ctypes
import importlib
import os
import random
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import corpus
from commands import environment, start
from dvsel.cli import interrupts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs timers, looks into /proc")

INTERRUPTED = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
except BaseException:
    dropped = True
done = True
"""
# The command line, once Python is up: before, Ctrl-C is Python's own business.
STARTED = "from dvsel.cli import interrupts, main; interrupts.install(); print('on', flush=True); main()"
SECONDS = 30  # to end in: the kernel that is being compiled comes first


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The handler in this process, for the length of a test."""
    monkeypatch.setattr(interrupts, "_interrupts", interrupts._Interrupts())
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.install()
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


def wait() -> None:
    """Sleep, to be woken by the interrupt."""
    time.sleep(5)
    raise AssertionError("nothing came")


# --- Where KeyboardInterrupt is raised. ---


def test_at_once_in_a_command() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts.command():
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("went on")


def test_an_import_comes_to_its_end_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "interrupted_import.py").write_text(INTERRUPTED)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt), interrupts.command():
        importlib.import_module("interrupted_import")
        wait()
    imported = sys.modules["interrupted_import"]
    assert imported.done and not hasattr(imported, "dropped")


@pytest.mark.parametrize("package", ["numba.core.dispatcher", "llvmlite.binding"])
def test_a_kernel_is_compiled_first(package: str) -> None:
    of_that_package: dict[str, Any] = {"__name__": package}
    with pytest.raises(KeyboardInterrupt), interrupts.command():
        exec(INTERRUPTED, of_that_package)
        wait()
    assert of_that_package["done"] and "dropped" not in of_that_package


def test_at_the_end_of_the_command_at_the_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "last_import.py").write_text(INTERRUPTED)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt), interrupts.command():
        importlib.import_module("last_import")


class Deleted:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def in_del() -> None:
    Deleted()


def in_weak_reference() -> None:
    referred = type("Referred", (), {})()
    watch = weakref.ref(referred, lambda _: signal.raise_signal(signal.SIGINT))
    del referred
    assert watch() is None


def in_callback_of_c() -> None:
    ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGINT))()


@pytest.mark.parametrize("dropping", [in_del, in_weak_reference, in_callback_of_c])
def test_again_where_it_is_dropped(dropping: Callable[[], None]) -> None:
    with pytest.raises(KeyboardInterrupt), interrupts.command():
        dropping()
        wait()


def test_twice_within_a_moment_is_once() -> None:
    with interrupts.command():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # as a launcher passes it on


@pytest.mark.parametrize("other", [signal.SIG_IGN, print])
def test_another_handler_stays(other: object) -> None:
    signal.signal(signal.SIGINT, other)  # type: ignore[arg-type]
    interrupts.install()
    assert signal.getsignal(signal.SIGINT) is other


# --- Where it ends the process. ---


@pytest.mark.parametrize(
    "program",
    [
        "signal.raise_signal(signal.SIGINT)",  # no command has begun
        """
with interrupts.command():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        time.sleep(0.6)
        signal.raise_signal(signal.SIGINT)  # while things are put in order
""",
    ],
)
def test_the_process_ends_at_once(program: str) -> None:
    lines = f"import signal, time\nfrom dvsel.cli import interrupts\ninterrupts.install()\n{program}\nprint('went on')"
    ended = subprocess.run([sys.executable, "-c", lines], capture_output=True, env=environment(), timeout=30)
    assert (ended.returncode, ended.stdout) == (130, b"")
    assert ended.stderr.decode() == "dvsel: interrupted; the same command goes on from here\n"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    documents = corpus.pool()
    corpus.write(folder / "pool" / "a.jsonl", documents[::2])
    corpus.write(folder / "pool" / "b.jsonl.zst", documents[1::2])
    corpus.write(folder / "target.jsonl", corpus.target())
    return folder


def session(leader: int) -> list[int]:
    """The processes of a session that run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found += [int(stat.parent.name)] if int(of) == leader and state != "Z" else []
    return found


def interrupted(pool: Path, folder: Path, delay: float, workers: int) -> str:
    """Ctrl-C for `dvsel score`, `delay` seconds after its start; "" where it came too late."""
    environ = environment(NUMBA_CACHE_DIR=str(folder / "kernels"))
    options = ("--min-words", 100, "--quiet", "-w", workers, "-o", folder / "out")
    words = ("score", "dsir", pool / "pool", "--target", pool / "target.jsonl", *options)
    with start(*words, command=(sys.executable, "-c", STARTED), env=environ, start_new_session=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == b"on\n"
            time.sleep(delay)
            os.killpg(process.pid, signal.SIGINT)
            began = time.monotonic()
            _, err = process.communicate(timeout=SECONDS)
            if process.returncode == 0:
                return ""
            assert process.returncode == 130, (delay, process.returncode, err.decode())
            kept = r"(kept: \d of 2 shards; )?"
            line = f"dvsel: interrupted; {kept}the same command goes on from here\n"
            assert re.fullmatch(line, err.decode()), delay
            while left := session(process.pid):
                assert time.monotonic() < began + SECONDS, f"{left} outlive the command"
                time.sleep(0.02)
        finally:
            for number in session(process.pid):
                os.kill(number, signal.SIGKILL)
    return "interrupted"


@pytest.mark.parametrize(
    ("delay", "workers"),
    [(0.7, 1), (1.0, 2), *(pytest.param(delay, 1, marks=pytest.mark.slow) for delay in (0.05, 1.5))],
)
def test_ctrl_c_while_kernels_compile(delay: float, workers: int, pool: Path, tmp_path: Path) -> None:
    interrupted(pool, tmp_path, delay, workers)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_ctrl_c_at_random_moments(seed: int, pool: Path, tmp_path: Path) -> None:
    """Ten times each: with kernels to compile, or to load from where the runs before left them."""
    moments = random.Random(seed)
    for number in range(10):
        folder = tmp_path / str(number - number % 2)
        interrupted(pool, folder, moments.uniform(0, 1.0 if number % 2 else 6.0), moments.choice((1, 2)))
