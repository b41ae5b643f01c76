"""Progress for people: what is done, in units that fit, and how long the rest will take."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import corpus
from commands import start
from dvsel import stages
from dvsel.progress import WAITS, Done, show, showing
from dvsel.stages import Stage
from plugin_packages import SLOW, install

# The command line, with a line each half of a second.
OFTEN = "import dvsel.stages as s; s._FIRST_LINE, s._NEXT_LINES = 0.5, 0.5; import dvsel.cli; dvsel.cli.main()"


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_all_that_is_known_is_said(later: Callable[[float], None]) -> None:
    stage = Stage()
    later(30)
    stage.update(Done(100_000_000, 12_345, 3_400_000), 400_000_000)
    assert stage.words() == "25% of 400 MB, 90 s left, 12.3k documents, 3.4M tokens, 113k tokens/s"


def test_the_rate_falls_while_nothing_comes(later: Callable[[float], None]) -> None:
    stage = Stage()
    later(10)
    stage.update(Done(500), 1_000)
    later(10)
    assert stage.words() == "50% of 1 kB, 20 s left, 25 bytes/s"


def test_small_pools_have_small_units(later: Callable[[float], None]) -> None:
    stage = Stage()
    later(10)
    stage.update(Done(410, 3), 1_000)
    assert stage.words() == "41% of 1 kB, 14 s left, 3 documents, 41 bytes/s"


def test_what_an_earlier_start_did_is_no_speed(later: Callable[[float], None]) -> None:
    stage = Stage()
    later(10)
    stage.update(Done(500, 50, 5_000, before=400), 1_000)
    assert stage.words() == "50% of 1 kB, 50 s left, 50 documents, 5,000 tokens, 100 tokens/s"


def test_waiting_is_said_and_is_no_work(later: Callable[[float], None]) -> None:
    stage = Stage()
    stage.update(Done(waits=WAITS[0]), 1_000)
    later(200)
    assert stage.words() == "loading a model, 3 min so far"
    stage.update(Done(), 1_000)
    later(10)
    stage.update(Done(100), 1_000)
    assert stage.words() == "10% of 1 kB, 90 s left, 10 bytes/s"


def test_it_is_too_early_to_tell_and_then_it_is_done(later: Callable[[float], None]) -> None:
    stage = Stage()
    later(1)
    stage.update(Done(1), 1_000)
    assert stage.words() == "0% of 1 kB"
    later(9)
    stage.update(Done(1_000), 1_000)
    assert stage.words() == "100% of 1 kB, 100 bytes/s"


def test_a_stage_without_a_known_end_says_how_long_it_takes(later: Callable[[float], None]) -> None:
    stage = Stage()
    stage.update(Done(), 0)
    later(7300)
    assert stage.words() == "2 h 2 min so far"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (99, "99 s"), (100, "2 min"), (6000, "1 h 40 min"), (3e5, "3.5 days")]
)
def test_times(seconds: float, words: str) -> None:
    assert stages._time(seconds) == words


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0"), (9_999, "9,999"), (10_000, "10k"), (999_600, "1M"), (5.25e15, "5.25e+03T")]
)
def test_amounts(number: float, words: str) -> None:
    assert stages._amount(number) == words


def test_lines_tell_of_the_stage_at_hand(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(stages, "_FIRST_LINE", 0.1)
    with stages.lines() as told, showing(told):
        show("sampling", 10, 10)
        show("a \x1b[31mlong fit", 5, 10, 2, 300)
        time.sleep(0.3)
    assert capsys.readouterr().err == "a \\x1b[31mlong fit: 50% of 10 bytes, 2 documents, 300 tokens\n"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that knows a slow scorer."""
    folder = tmp_path_factory.mktemp("site")
    more = {"ASKED": str(folder / "asked"), "SECONDS": "0.02"}
    return install(folder, "slow-scorer", SLOW, {"slow": "Slow"}) | more


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus.write(tmp_path_factory.mktemp("pool") / "a.jsonl", corpus.pool()[:150])


@pytest.mark.parametrize("quiet", [False, True])
def test_a_log_tells_how_far_a_slow_batch_is(quiet: bool, pool: Path, known: dict[str, str], tmp_path: Path) -> None:
    words = ("score", "slow", pool, "-o", tmp_path / "out", *(["--quiet"] if quiet else []))
    with start(*words, command=(sys.executable, "-c", OFTEN), env=known) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    line = r"scoring: (\d+)% of \d+ kB(, [\d]+ s left)?, (\d+) documents, ([\d,.k]+) tokens(, [\d,.k]+ tokens/s)?"
    found = [match for one in err.decode().splitlines() if (match := re.fullmatch(line, one))]
    if quiet:
        assert err == b""
        return
    documents = [int(match[3]) for match in found]
    assert len(set(documents)) >= 3 and documents == sorted(documents) and documents[0] < 150
    assert any(match[2] and match[5] for match in found)


@pytest.mark.skipif(sys.platform != "linux", reason="makes a terminal")
def test_a_terminal_shows_it_too(pool: Path, known: dict[str, str], tmp_path: Path) -> None:
    mine, theirs = os.openpty()
    words = ("score", "slow", pool, "-o", tmp_path / "out")
    with start(*words, env=known | {"TERM": "xterm", "COLUMNS": "100"}, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while process.poll() is None:
            try:
                shown += os.read(mine, 1 << 16)
            except OSError:  # the other end is closed
                break
    os.close(mine)
    assert process.returncode == 0, shown
    found = {int(one) for one in re.findall(rb"(\d+) documents, [\d,.k]+ tokens", shown)}
    assert len(found) >= 3 and b" s left" in shown
