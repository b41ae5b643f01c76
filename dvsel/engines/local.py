"""Run one function over many tasks in this machine's processes.

Workers are forked from a server process that has imported what they need (`commands/worker_preload.py`), where the
system has fork: the imports take longer than many a job. The server starts beside this process's own first steps.

Results come in the order of completion. With one worker everything runs in this process. A task reports its progress
with `advance`, and that of long work with `working_on`, wherever it runs. Ctrl-C, an error in a task and the
death of the parent all end the workers.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from dvsel import private
from dvsel.engines import worker
from dvsel.errors import UserError
from dvsel.progress import WAITS, Done, on_waits, tell, watched

Task = TypeVar("Task")
Result = TypeVar("Result")

_IN_FLIGHT_A_WORKER = 2
_FORKS = "forkserver" in multiprocessing.get_all_start_methods()
_context: Any = multiprocessing.get_context("forkserver" if _FORKS else "spawn")
_COUNTED = 4  # bytes, documents, tokens, bytes of an earlier start; then who waits
_progress: Any = None
_skipped = Done()
_starting = threading.Lock()


def advance(read: int, documents: int = 0, tokens: int = 0, before: int = 0) -> None:
    """Add to the job's progress: bytes read, documents, tokens, and how many of the bytes an earlier start did."""
    if _progress is not None:
        with _progress.get_lock():
            for place, amount in enumerate((read, documents, tokens, before)):
                _progress[place] += amount


def skip(done: Done) -> None:
    """Add what an earlier start did to the job's progress, in the process that gives out the tasks."""
    # Not through the counters that processes share: one that was killed may hold their lock for ever.
    global _skipped
    _skipped += done


@contextlib.contextmanager
def working_on(read: int, documents: int, tokens: int) -> Iterator[None]:
    """Advance by so much in the course of the block: as `progress.within` reports, and by the rest at its end."""
    whole, told = (read, documents, tokens), (0, 0, 0)

    def advance_to(share: float) -> None:
        nonlocal told
        now = tuple(max(int(min(share, 1.0) * amount), was) for amount, was in zip(whole, told, strict=True))
        advance(*(amount - was for amount, was in zip(now, told, strict=True)))
        told = now[0], now[1], now[2]

    with watched(advance_to):
        yield
    advance_to(1.0)


def _wait(what: str, change: int) -> None:
    if _progress is not None:
        with _progress.get_lock():
            _progress[_COUNTED + WAITS.index(what)] += change


def _so_far() -> Done:
    """Return what the job has done, read without the lock, which a process may hold that was killed."""
    values = list(_progress.get_obj())
    waits = next((what for what, count in zip(WAITS, values[_COUNTED:], strict=True) if count > 0), "")
    read, documents, tokens, before = values[:_COUNTED]
    return _skipped + Done(read, documents, tokens, before, waits)


def available_workers() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(workers: int) -> None:
    """Start the fork server early, where `run` with so many workers needs it, and return at once."""
    if workers > 1 and _FORKS:
        private.start_fork_server(_context, ["dvsel.commands.worker_preload"])


def run(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    workers: int,
    stage: str = "",
    total: int = 0,
) -> Iterator[Result]:
    """Yield the results of `function` for each task.

    tasks may be an iterator that makes its tasks late: few more than there are workers are taken ahead of time.
    stage, total: told to `dvsel.progress` about four times a second, with what is done; "" for nothing.
    """
    global _progress, _skipped
    prepare(workers)
    _progress = _context.Array("q", _COUNTED + len(WAITS))
    _skipped = Done()
    on_waits(_wait)

    def report() -> None:
        if stage:
            tell(stage, _so_far(), total)

    tasks = iter(tasks)
    first = list(itertools.islice(tasks, workers))
    try:
        if len(first) <= 1:
            yield from _here(function, itertools.chain(first, tasks), report)
        else:
            yield from _in_processes(function, itertools.chain(first, tasks), len(first), report)
    finally:
        on_waits(None)
        _progress = None


def _here(function: Callable[[Task], Result], tasks: Iterable[Task], report: Callable[[], None]) -> Iterator[Result]:
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.25):
            report()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        for task in tasks:
            yield function(task)
        report()
    finally:
        done.set()
        watcher.join()


def _in_processes(
    function: Callable[[Task], Result],
    waiting: Iterator[Task],
    workers: int,
    report: Callable[[], None],
) -> Iterator[Result]:
    pool = ProcessPoolExecutor(workers, _context, _start_worker, (_progress, _context.Value("i", 0)))
    running: set[Future[Result]] = set()
    try:
        while True:
            while len(running) < workers * _IN_FLIGHT_A_WORKER and (task := next(waiting, None)) is not None:
                with _starting, private.without_script():
                    running.add(pool.submit(function, task))
            if not running:
                break
            finished, running = wait(running, timeout=0.25, return_when=FIRST_COMPLETED)
            report()
            for future in finished:
                yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process died (out of memory?); run the same command again to resume, with fewer --workers"
        ) from error
    finally:
        # All is done, or the run was aborted; Python's own way down would take each worker half a second.
        processes = private.workers_of(pool)
        pool.shutdown(wait=not processes, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _start_worker(progress: Any, started: Any) -> None:
    global _progress
    _progress = progress
    with started.get_lock():
        worker.number = started.value
        started.value += 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    on_waits(_wait)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
