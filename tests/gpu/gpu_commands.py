"""Checks of whole commands on a GPU: several processes over shards, the CPU's subset, and what is left of a command
that is stopped. `gpu_checks` lists them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

import checkout
import corpus
import language_models
from dvsel.score_files.find import row_files
from dvsel.score_files.reader import ScoreFile

Floats = npt.NDArray[np.float32]

_SHARDS = 4
_CHARACTERS = 200  # of a document
_AGAIN = 1e-5  # of the largest score: float32, summed in another order
_TIED = 1e-4  # of the scores' spread: float32 beside float32 on another device, curvature included
_HELD = 64 << 20  # bytes: a process that uses the GPU holds more for its context alone
_SECONDS = 120  # to start, or to end in


def start(*words: object, **environment: str) -> subprocess.Popen[bytes]:
    """Start `dvsel` in a session of its own; what it says is dropped."""
    return subprocess.Popen(
        [sys.executable, "-m", "dvsel", *map(str, words), "--quiet"],
        env=checkout.environment(**environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def run(*words: object, **environment: str) -> None:
    """Run `dvsel` to its end."""
    with start(*words, **environment) as process:
        _, err = process.communicate(timeout=5 * _SECONDS)
    assert process.returncode == 0, err.decode()


def commands_agree(folder: Path) -> str:
    """Two processes on one GPU give the scores of one; the CPU gives the same subset but for what is tied."""
    name = language_models.build(folder / "model", window=256, layers=1)
    pool, target = _pool(folder)
    method = ("--target", target, "--model", name, "--precision", "fp32")
    run("fit", "influence", "--pool", pool, *method, "-o", folder / "fitted")
    run("score", "influence", pool, "--fitted", folder / "fitted", "-w", 1, "-o", folder / "one")
    run("score", "influence", pool, "--fitted", folder / "fitted", "-w", 2, "-o", folder / "two")
    run("score", "influence", pool, *method, "-w", 1, "-o", folder / "cpu", CUDA_VISIBLE_DEVICES="")
    one, two = _scores(folder / "one"), _scores(folder / "two")
    apart = float(np.nanmax(np.abs(one - two)) / np.nanmax(np.abs(one)))
    assert apart <= _AGAIN and (np.isnan(one) == np.isnan(two)).all(), f"one process and two differ by {apart:.1e}"
    return f"{len(one)} documents, two processes within {apart:.0e} of one; {_same_subset(folder, one)}"


def _pool(folder: Path) -> tuple[Path, Path]:
    """A pool of short documents of real text in several shards, and a target."""
    for number in range(_SHARDS):
        corpus.write(folder / "pool" / f"{number}.jsonl", _shard(number))
    return folder / "pool", corpus.write(folder / "target.jsonl", _short(corpus.target()[:20]))


def _shard(number: int) -> list[corpus.Document]:
    return _short(corpus.pool()[number::_SHARDS])


def _short(documents: list[corpus.Document]) -> list[corpus.Document]:
    return [document | {"text": document["text"][:_CHARACTERS]} for document in documents]


def _scores(folder: Path) -> Floats:
    """The scores of all documents, shard by shard."""
    files = [ScoreFile(path) for path in sorted(row_files(str(folder)))]
    return np.concatenate([rows.score[:, 0] for file in files for rows in file.rows(())])


def _same_subset(folder: Path, one: Floats) -> str:
    """The selected tenth of both; documents that only one of them has are tied with the threshold."""
    for name in ("one", "cpu"):
        run("select", folder / name, "--budget", "10% docs", "-o", folder / f"{name}-kept")
    kept, expected = (corpus.selected_ids(folder / f"{name}-kept") for name in ("one", "cpu"))
    by_id = dict(zip(_ids(), one.tolist(), strict=True))
    threshold, width = min(by_id[name] for name in kept), float(np.nanstd(one))
    apart = [abs(by_id[name] - threshold) / width for name in kept ^ expected]
    assert max(apart, default=0.0) <= _TIED, f"{len(apart)} documents differ, by up to {max(apart):.1e}"
    return f"the CPU's subset of {len(kept)} but for {len(apart)} that are tied"


def _ids() -> list[str]:
    return [document["id"] for number in range(_SHARDS) for document in _shard(number)]


def interrupted(folder: Path) -> str:
    """Ctrl-C, while two processes score."""
    return _stopped(folder, signal.SIGINT)


def killed(folder: Path) -> str:
    """kill -9 of the first process, while two others score."""
    return _stopped(folder, signal.SIGKILL)


def _stopped(folder: Path, how: signal.Signals) -> str:
    name = language_models.build(folder / "model", hidden=256, layers=8, window=1024, head_dim=64)
    pool, _ = _pool(folder)
    for number in range(_SHARDS):
        corpus.write(pool / f"{number}.jsonl", corpus.documents() * 100)
    before = _used()
    with start("score", "perplexity", pool, "--model", name, "-w", 2, "-o", folder / "out") as process:
        try:
            _wait(lambda: len(session(process.pid)) >= 3 and _used() >= before + _held(), "the workers do not start")
            held = _used() - before
            time.sleep(1)
            assert process.poll() is None, "the command was over before it was stopped"
            (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
            begin = time.monotonic()
            process.wait(_SECONDS)
            _wait(lambda: not session(process.pid), "processes outlive the command")
            _wait(lambda: _used() < before + max(_held(), 1), "the GPU's memory is not given back")
            took = time.monotonic() - begin
        finally:
            for number in session(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
    return f"exit code {process.returncode}, all gone in {took:.1f} s{f', {held >> 20} MB free again' if held else ''}"


def _held() -> int:
    """Bytes of the GPU that two processes hold at least; 0 on a CPU."""
    return _HELD if torch.cuda.is_available() else 0


def _used() -> int:
    """Bytes of the GPU that are taken, by whomever; 0 on a CPU."""
    if not torch.cuda.is_available():
        return 0
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return total - free


def _wait(done: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _SECONDS
    while not done():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def session(leader: int) -> list[int]:
    """The processes of a session that run."""
    return list(_of_session(leader))


def _of_session(leader: int) -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(of) == leader and state != "Z":
            yield int(stat.parent.name)
