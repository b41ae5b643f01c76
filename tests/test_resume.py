"""Killed at any moment and started again with the same command: the result is that of an undisturbed run."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

import corpus
from commands import environment, failure, ok, start
from dvsel.score_files.find import SCORES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# The command line, with files split into ranges of 200 kB instead of 64 MB. Workers are told their range.
SMALL = "import dvsel.cli, dvsel.shards.digest; dvsel.shards.digest.RANGE = 200_000; dvsel.cli.main()"
SMALL_RANGES = (sys.executable, "-c", SMALL)
MARK = "DVSEL_TEST_MARK"
KEPT = r"(kept: \d of 4 shards( and [\d,]+ documents of others)?; )?"


@pytest.fixture(autouse=True, scope="module")
def interruptible() -> Iterator[None]:
    """A shell has the background jobs that it starts ignore Ctrl-C, and they their children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class Pool:
    """A pool of several shards, one of them large and plain, and the command that selects from it."""

    folder: Path

    @property
    def command(self) -> tuple[object, ...]:
        return (
            "select", self.folder / "pool", "--with", "dsir", "--target", self.folder / "target.jsonl",
            "--budget", "60%", "--shard-size", "150KB", "--workers", 2, "-o", "out",
        )  # fmt: skip


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = tmp_path_factory.mktemp("pool")
    documents = corpus.pool()
    corpus.write(folder / "pool" / "large.jsonl", documents)
    parts = {"a.jsonl.zst": slice(0, 200), "sub/b.jsonl.gz": slice(200, 500), "c.parquet": slice(500, None)}
    for name, part in parts.items():
        copies = [document | {"id": f"{name}/{document['id']}"} for document in documents[part]]
        corpus.write(folder / "pool" / name, copies)
    corpus.write(folder / "target.jsonl", corpus.target())
    return Pool(folder)


@dataclass
class Started:
    """A command on its way, in a session of its own, whose processes are told by a mark in their environment."""

    words: tuple[object, ...]
    cwd: Path

    def __enter__(self) -> Started:
        self.mark = uuid4().hex
        environ = environment(**{MARK: self.mark})
        self.cwd.mkdir(exist_ok=True)
        self.process = start(*self.words, command=SMALL_RANGES, cwd=self.cwd, env=environ, start_new_session=True)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self.alive():
            os.kill(number, signal.SIGKILL)
        self.process.communicate()

    def alive(self) -> list[int]:
        """The processes of this command that run."""
        names = (path.name for path in Path("/proc").iterdir())
        return [int(name) for name in names if name.isdigit() and self._is_ours(int(name))]

    def _is_ours(self, number: int) -> bool:
        try:
            return f"{MARK}={self.mark}".encode() in Path(f"/proc/{number}/environ").read_bytes()
        except OSError:
            return False

    def all_gone(self, seconds: float = 10) -> bool:
        """Whether all processes end in time."""
        end = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def events(self) -> Iterator[None]:
        """Yields whenever a file of the output appears, grows or goes, until the command ends."""
        seen = None
        while self.process.poll() is None:
            now = snapshot(self.cwd / "out")
            if now != seen:
                seen = now
                yield
            time.sleep(0.001)


def is_temporary(name: str) -> bool:
    """Whether a file, named relative to the output folder, may be left by a killed run, but not by one that ended."""
    name = name.removeprefix(f"{SCORES}/")
    return any(part.startswith(".") for part in Path(name).parts) and not is_kept(name)


def is_kept(name: str) -> bool:
    """Whether it is a hidden file that stays: what a run did, what it wrote, from what, and which subset it is."""
    return name.partition(".dvsel/")[2] in ("lock", "report.json", "written/names.txt", "inputs.json", "subset")


def snapshot(folder: Path) -> list[tuple[str, int]]:
    found = []
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                found.append((f"{at}/{name}", Path(at, name).stat().st_size))
            except FileNotFoundError:
                continue
    return sorted(found)


def killed(pool: Pool, cwd: Path, event: int, delay: float) -> bool:
    """Kill the command `delay` seconds after that many events; False if it ended before."""
    with Started(pool.command, cwd) as started:
        for number, _ in enumerate(started.events()):
            if number == event:
                time.sleep(delay)
                started.process.kill()
                started.process.wait()
                assert started.all_gone(), "workers outlive their parent"
                return started.process.returncode == -signal.SIGKILL
        assert started.process.returncode == 0, started.process.communicate()[1]
        return False


def finish(pool: Pool, cwd: Path) -> None:
    with Started(pool.command, cwd) as started:
        _, err = started.process.communicate(timeout=120)
        assert started.process.returncode == 0, err


def times_of_finished(folder: Path) -> dict[Path, int]:
    """When each score file and output shard that bears its final name was written."""
    finished = [*(folder / SCORES).rglob("*.dvsel.rows"), *corpus.shards_of(folder)]
    names = [path.relative_to(folder) for path in finished]
    return {path: (folder / path).stat().st_mtime_ns for path in names if not is_temporary(str(path))}


@pytest.fixture(scope="module")
def undisturbed(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The output of a run that nobody disturbed."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    finish(pool, cwd)
    found = corpus.tree(cwd / "out")
    assert not any(is_temporary(name) for name in found), found.keys()
    assert len(corpus.shards_of(cwd / "out")) >= 8
    return found


def check_partial(folder: Path, undisturbed: dict[str, bytes]) -> None:
    """What bears its final name is whole."""
    for name, content in corpus.tree(folder).items():
        if not any(part.startswith(".") for part in Path(name).parts):
            assert content == undisturbed[name], f"{name} is half-written or differs"


def check_kills(pool: Pool, cwd: Path, undisturbed: dict[str, bytes], moments: list[tuple[int, float]]) -> None:
    """Kill at each of these moments, one after the other, then finish."""
    for event, delay in moments:
        before = times_of_finished(cwd / "out")
        if not killed(pool, cwd, event, delay):
            break
        check_partial(cwd / "out", undisturbed)
        after = times_of_finished(cwd / "out")
        assert {path: after.get(path) for path in before} == before, "finished shards were made again"
    finish(pool, cwd)
    assert corpus.tree(cwd / "out") == undisturbed


def test_killed_again_and_again(pool: Pool, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    generator = random.Random(0)
    moments = [(event, generator.uniform(0, 0.05)) for event in (1, 5, 9)]
    check_kills(pool, tmp_path, undisturbed, moments)


def test_killed_while_writing_shards(pool: Pool, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    check_kills(pool, tmp_path, undisturbed, [(24, 0.0)])
    before = times_of_finished(tmp_path / "out")
    finish(pool, tmp_path)
    assert times_of_finished(tmp_path / "out") == before, "a finished run was done again"
    assert corpus.tree(tmp_path / "out") == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_killed_at_random_moments(seed: int, pool: Pool, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    generator = random.Random(seed)
    moments = [(generator.randrange(40), generator.uniform(0, 0.3)) for _ in range(4)]
    check_kills(pool, tmp_path, undisturbed, moments)


def test_ctrl_c_ends_all_processes_and_the_same_command_goes_on(
    pool: Pool, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    with Started(pool.command, tmp_path) as started:
        for _ in started.events():
            if list((tmp_path / "out").rglob(".*.tmp")) and (tmp_path / "out" / SCORES / "dsir.fitted").exists():
                os.killpg(started.process.pid, signal.SIGINT)
                break
        _, err = started.process.communicate(timeout=30)
        assert started.process.returncode == 130
        *warned, last = err.decode().splitlines()
        assert re.fullmatch(f"dvsel: interrupted; {KEPT}the same command goes on from here", last)
        assert all(line.startswith("dvsel: warning: ") for line in warned)
        assert started.all_gone(5)
    check_partial(tmp_path / "out", undisturbed)
    finish(pool, tmp_path)
    assert corpus.tree(tmp_path / "out") == undisturbed


@pytest.mark.parametrize("delay", [0.1, 0.3, 0.6, 1.0])
def test_ctrl_c_while_starting(delay: float, pool: Pool, tmp_path: Path) -> None:
    with start(*pool.command, cwd=tmp_path, start_new_session=True) as process:
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    # Before `main` is reached, Python itself ends by the signal, which a shell calls 130 too.
    assert process.returncode == 130 or (process.returncode == -signal.SIGINT and b", in main" not in err), err.decode()
    assert process.returncode == -signal.SIGINT or b"Traceback" not in err


def test_one_worker_makes_the_same_files(
    pool: Pool, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvsel.shards.digest.RANGE", 200_000)
    monkeypatch.chdir(tmp_path)
    ok(*pool.command, "--workers", 1)
    assert corpus.tree(tmp_path / "out") == undisturbed


def test_scores_of_an_interrupted_run_are_not_taken_for_another_fit(pool: Pool, tmp_path: Path) -> None:
    with Started(pool.command, tmp_path) as started:
        for _ in started.events():
            if list((tmp_path / "out").rglob("*.dvsel.rows")):
                break
        started.process.kill()
        started.process.wait()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert "holds another run" in failure(*pool.command, "--min-words", 50)
        ok(*pool.command, "--min-words", 50, "--overwrite", "--workers", 1)


def test_two_runs_in_one_folder_do_not_mix(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Started(pool.command, tmp_path) as first:
        for _ in first.events():
            if (tmp_path / "out" / SCORES / "recipe.yaml").exists():
                break
        for more in ((), ("--overwrite",)):
            assert "another dvsel is writing to" in failure(*pool.command, *more)
        assert first.process.poll() is None
