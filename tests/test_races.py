"""Several runs that start in one folder at the same time: one has it, the others are refused, nothing is mixed."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

import corpus
from commands import start
from dvsel.errors import UserError
from dvsel.runs.output_folder import RECIPE, working_in
from dvsel.storage.manifest import foreign, record
from dvsel.storage.places import atomic_writer

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are forked")

_REFUSALS = ("another dvsel is writing to", "holds another run")


def together(*bodies: Callable[[], str], apart: float = 0.0) -> list[str]:
    """What each body returns, or the error that it raises, all run at the same moment in processes of their own."""
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(len(bodies))
    ends, processes = [], []
    for number, body in enumerate(bodies):
        here, there = fork.Pipe(duplex=False)
        processes.append(fork.Process(target=_answer, args=(body, barrier, number * apart, there)))
        processes[-1].start()
        ends.append(here)
    found = [end.recv() for end in ends]
    for process in processes:
        process.join()
    return found


def _answer(body: Callable[[], str], barrier: Barrier, delay: float, end: Connection) -> None:
    barrier.wait()
    time.sleep(delay)
    try:
        end.send(body())
    except UserError as error:
        end.send(str(error))


def run_in(folder: Path, recipe: str, overwrite: bool) -> Callable[[], str]:
    """A small run that writes its recipe into two files."""

    def body() -> str:
        with working_in(str(folder), recipe, overwrite):
            for name in ("a.jsonl", "b.jsonl"):
                record(str(folder), [name])
                with atomic_writer(str(folder / name)) as file:
                    file.write(recipe.encode())
                time.sleep(0.002)
        return "done"

    return body


def check_starts(folder: Path, rounds: int) -> None:
    generator = random.Random(0)
    recipes = [f"dvsel: 0\ncommand: select\nbudget: {number}\n" for number in range(3)]
    for number in range(rounds):
        place = folder / str(number // 5)  # some of the folders have been used before
        overwrite = [generator.random() < 0.3 for _ in recipes]
        bodies = [run_in(place, recipe, one) for recipe, one in zip(recipes, overwrite, strict=True)]
        answers = together(*bodies, apart=generator.uniform(0, 0.01))
        assert all(answer == "done" or any(what in answer for what in _REFUSALS) for answer in answers), answers
        recipe = (place / RECIPE).read_text()
        assert {(place / name).read_text() for name in ("a.jsonl", "b.jsonl")} == {recipe}, "a mixed folder"
        done = [recipe for recipe, answer in zip(recipes, answers, strict=True) if answer == "done"]
        assert recipe in done or not done
        assert foreign(str(place)) == []


def test_simultaneous_starts(tmp_path: Path) -> None:
    check_starts(tmp_path, 15)


def test_a_folder_is_not_judged_while_another_run_changes_it(tmp_path: Path) -> None:
    with working_in(str(tmp_path), "dvsel: 0\n", overwrite=False):
        (tmp_path / "half").write_text("as if the other run's list were on its way")
        assert "another dvsel is writing to" in together(run_in(tmp_path, "dvsel: 0\n", overwrite=True))[0]


@pytest.mark.slow
def test_three_hundred_simultaneous_starts(tmp_path: Path) -> None:
    check_starts(tmp_path, 300)


@pytest.mark.slow
def test_commands_that_start_within_20_ms(tmp_path: Path) -> None:
    """The real command, in two forms that differ in the result: the folder holds that of one of them, whole."""
    corpus.write(tmp_path / "pool" / "a.jsonl", corpus.pool()[:300])
    corpus.write(tmp_path / "target.jsonl", corpus.target())
    words = ("select", tmp_path / "pool", "--with", "dsir", "--target", tmp_path / "target.jsonl", "-w", 1)
    truths = {}
    for budget in ("20%", "40%"):
        with start(*words, "--budget", budget, "-o", "out", cwd=_made(tmp_path / f"truth{budget[:2]}")) as one:
            one.communicate()
        truths[budget] = corpus.tree(tmp_path / f"truth{budget[:2]}" / "out")
    for number in range(20):
        cwd = _made(tmp_path / str(number))
        started: list[Any] = []
        for budget in truths:
            started.append(start(*words, "--budget", budget, "-o", "out", cwd=cwd))
            time.sleep(random.Random(number).uniform(0, 0.02))
        errors = [process.communicate()[1].decode() for process in started]
        codes = [process.returncode for process in started]
        assert sorted(codes) == [0, 1], errors
        budget = list(truths)[codes.index(0)]
        assert any(what in errors[codes.index(1)] for what in _REFUSALS)
        assert corpus.tree(cwd / "out") == truths[budget]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_two_writers_of_one_file_take_turns(tmp_path: Path) -> None:
    """Outside a claimed folder, as `dvsel fit -o FILE`: the file is one writer's, whole."""

    def writer(letter: bytes) -> Callable[[], str]:
        def body() -> str:
            for _ in range(20):
                with atomic_writer(str(tmp_path / "x.fitted")) as file:
                    file.write(letter * 50_000)
                    file.write(letter * 50_000)
                assert len(set((tmp_path / "x.fitted").read_bytes())) == 1
            return "done"

        return body

    assert together(writer(b"a"), writer(b"b"), writer(b"c")) == ["done"] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["x.fitted"]
