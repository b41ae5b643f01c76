"""Run one function over many tasks, in this process and in others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dvsel.engines import local
from dvsel.engines.local import advance, available_workers, run, working_on
from dvsel.errors import UserError
from dvsel.progress import WAITS, Done, parts, showing, waiting, within


def square(number: int) -> int:
    advance(number)
    return number * number


def where(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def fail_at_three(number: int) -> int:
    if number == 3:
        raise UserError("a.jsonl, line 3: broken")
    time.sleep(0.05)
    return number


def die(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return number


def slow(path: str) -> str:
    """Says that it began, and would take a minute."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)
    return path


def is_gone(pid: int) -> bool:
    """Return whether the process ends within 10 seconds."""
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def no_children() -> bool:
    """Return whether all workers end within 10 seconds; who reaps one tells others a moment later."""
    for _ in range(200):
        if not multiprocessing.active_children():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_has_its_result(workers: int) -> None:
    assert sorted(run(square, range(20), workers)) == [number * number for number in range(20)]
    assert list(run(square, [], workers)) == []


def test_one_worker_or_one_task_stays_in_this_process() -> None:
    assert set(run(where, range(3), 1)) == {os.getpid()}
    assert set(run(where, [1], 8)) == {os.getpid()}


def test_several_workers_are_other_processes() -> None:
    found = set(run(where, range(8), 2))
    assert len(found) == 2 and os.getpid() not in found
    assert no_children()


@pytest.fixture
def seen() -> Iterator[list[Done]]:
    """What is told of the stage "work"."""
    told: list[Done] = []
    with showing(lambda stage, done, total: told.append(done) if (stage, total) == ("work", 99) else None):
        yield told


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_adds_up(workers: int, seen: list[Done]) -> None:
    list(run(square, range(50), workers, "work", 99))
    amounts = [done.bytes for done in seen]
    assert amounts == sorted(amounts) and seen[-1] == Done(bytes=sum(range(50)))


def in_parts(number: int) -> int:
    """Tells how far it is within the work at hand, by two passes, the second of which tells nothing of its end."""
    with working_on(1000 * number, 10, 0):
        for one in parts("ab"):
            within(0.5)
            within(1.0 if one == "a" else 0.2)  # goes over it once more
            time.sleep(0.3)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_goes_on_within_the_work_at_hand(workers: int, seen: list[Done]) -> None:
    list(run(in_parts, [1, 1], workers, "work", 99))
    assert any(done.documents % 10 for done in seen), "told before a task is whole"
    assert [done.bytes for done in seen] == sorted(done.bytes for done in seen)
    assert seen[-1] == Done(2000, 20)


def wait_for_a_model(number: int) -> int:
    with waiting(WAITS[0]):
        time.sleep(0.6)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_waited_for_is_told(workers: int, seen: list[Done]) -> None:
    list(run(wait_for_a_model, [1, 2], workers, "work", 99))
    assert WAITS[0] in {done.waits for done in seen}
    assert seen[-1].waits == ""


def late(work: list[int]) -> Iterator[int]:
    """Tasks that are made late, of which an earlier start did some."""
    local.skip(Done(1000, 10, 5, 1000))
    for number in work:
        if number % 2:
            yield number
        else:
            local.skip(Done(number, before=number))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_an_earlier_start_did_is_added(workers: int, seen: list[Done]) -> None:
    for _ in range(2):  # a job begins with nothing
        assert sorted(run(square, late([1, 2, 3, 4, 5]), workers, "work", 99)) == [1, 9, 25]
        assert seen[-1] == Done(1000 + 15, 10, 5, 1006)


def test_a_job_without_a_stage_tells_nothing() -> None:
    told: list[str] = []
    with showing(lambda stage, *_: told.append(stage)):
        list(run(square, range(5), 1))
    assert told == []


def test_progress_is_shown_while_a_task_goes_on(seen: list[Done]) -> None:

    def task(_: int) -> int:
        advance(7)
        time.sleep(0.6)
        return len(seen)

    assert next(run(task, [0], 1, "work", 99)) >= 1
    assert seen[0] == Done(bytes=7)


def test_advance_without_a_job_does_nothing() -> None:
    advance(5)
    assert local._progress is None


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_task_ends_the_job_and_is_the_job_s(workers: int) -> None:
    with pytest.raises(UserError, match=r"^a\.jsonl, line 3: broken$"):
        list(run(fail_at_three, range(1000), workers))
    assert no_children()
    assert list(run(square, [2], workers)) == [4]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_making_tasks_ends_the_job(workers: int) -> None:
    def tasks() -> Iterator[int]:
        yield from range(6)
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        list(run(square, tasks(), workers))
    assert no_children()


def test_a_killed_worker_is_one_line_with_a_remedy() -> None:
    with pytest.raises(UserError, match=r"a worker process died .*; run the same command again to resume"):
        list(run(die, range(6), 2))
    assert no_children()


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (2, 4)])
def test_tasks_are_taken_late(workers: int, ahead: int) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(30):
            taken.append(number)
            yield number

    done = 0
    for _ in run(square, tasks(), workers):
        done += 1
        assert len(taken) <= done + ahead + workers
    assert done == 30


def test_a_job_left_early_ends_its_workers(tmp_path: Path) -> None:
    results = run(slow_or_square, [str(tmp_path / "began"), "", "", ""], 2)
    next(results)
    while not (tmp_path / "began").exists():
        time.sleep(0.02)
    started = time.monotonic()
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 10
    assert no_children()


def slow_or_square(path: str) -> str:
    return slow(path) if path else path


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_local import slow; from dvsel.engines.local import run\n"
        f"if __name__ == '__main__': list(run(slow, [{str(tmp_path / 'a')!r}, {str(tmp_path / 'b')!r}], 2))\n"
    )
    (tmp_path / "job.py").write_text(program)
    with subprocess.Popen([sys.executable, str(tmp_path / "job.py")]) as job:
        marks = [tmp_path / "a", tmp_path / "b"]
        for _ in range(600):
            if all(mark.exists() and mark.read_text() for mark in marks):
                break
            time.sleep(0.05)
        job.kill()
    assert all(is_gone(int(mark.read_text())) for mark in marks)


def test_there_is_a_worker() -> None:
    assert available_workers() >= 1
