"""`python -m benchmarks.gpu`: time is divided, and whatever was found before the end is kept."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import runpy
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import checkout

pytest.importorskip("torch")
pytest.importorskip("transformers")

gpu = runpy.run_path(str(checkout.ROOT / "benchmarks" / "gpu.py"))
Result = gpu["Result"]


def results(step: str, seconds: float = 0.0, count: int | None = None) -> Iterator[Any]:
    for number in itertools.count() if count is None else range(count):
        time.sleep(seconds)
        yield Result(step, str(number), {"found": "1"})


def divided(steps: dict[str, Iterator[Any]], seconds: float) -> tuple[list[Any], list[str]]:
    """The results, and the steps that did not come to their end."""
    found: list[Any] = []
    left = gpu["divide"](steps, seconds, found.append)
    return found, left


def test_each_step_gets_its_part_of_the_time() -> None:
    found, left = divided({"a": results("a", 0.02), "b": results("b", 0.02), "c": results("c", 0.02)}, 0.6)
    counts = [sum(one.step == step for one in found) for step in "abc"]
    assert left == ["a", "b", "c"] and min(counts) >= 2
    assert [step for step, _ in itertools.groupby(found, key=lambda one: one.step)] == ["a", "b", "c"]


def test_what_a_step_leaves_goes_to_those_that_had_to_stop() -> None:
    found, left = divided({"a": results("a", 0.02, 20), "b": results("b", 0, 1)}, 30)
    assert left == [] and [one.name for one in found if one.step == "a"] == [str(number) for number in range(20)]
    found, left = divided({"a": results("a", 0.05, 12), "b": results("b", 0, 1)}, 1)
    order = [step for step, _ in itertools.groupby(found, key=lambda one: one.step)]
    assert order == ["a", "b", "a"] and left == []


def test_a_step_that_breaks_is_a_failure_and_no_end(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> Iterator[Any]:
        yield from results("a", count=1)
        raise ValueError("no such device")

    found, left = divided({"a": broken(), "b": results("b", count=2)}, 10)
    assert [one.failed for one in found] == [False, True, False, False] and left == []
    assert found[1].figures["evidence"] == "ValueError: no such device"
    assert "Traceback" in capsys.readouterr().err


def test_files_hold_all_so_far(tmp_path: Path) -> None:
    findings = gpu["Findings"](tmp_path, "A GPU")
    findings.add(Result("kernel", "125M", {"tokens/s": "9"}))
    findings.add(Result("correctness", "losses", {"result": "passed", "evidence": "|x| small"}))
    findings.add(Result("kernel", "8B", {"share": "50%"}))
    assert (tmp_path / "results.md").read_text() == (
        "A GPU\n\n"
        "| correctness | result | evidence |\n| --- | --- | --- |\n| losses | passed | /x/ small |\n\n"
        "| kernel | tokens/s | share |\n| --- | --- | --- |\n| 125M | 9 |  |\n| 8B |  | 50% |\n"
    )
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept["machine"] == "A GPU" and [one["name"] for one in kept["results"]] == ["125M", "losses", "8B"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.md"]


def test_a_rehearsal_that_is_killed_keeps_what_it_has(tmp_path: Path) -> None:
    output = tmp_path / "results"
    words = [sys.executable, "-m", "benchmarks.gpu", "--cpu", "--steps", "kernel", "fit", "--output", str(output)]
    with subprocess.Popen(
        words, cwd=checkout.ROOT, env=checkout.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"rehearsal on the CPU")
        process.stdout.readline()
        process.kill()
    (first, *_) = json.loads((output / "results.json").read_text())["results"]
    assert (first["step"], first["name"]) == ("kernel", "tiny, 64 tokens, training step")


@pytest.mark.slow
def test_a_rehearsal_of_all_steps_passes(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.gpu", "--cpu", "--minutes", "60", "--output", str(tmp_path / "results")]
    ended = subprocess.run(words, cwd=checkout.ROOT, env=checkout.environment(), capture_output=True, check=False)
    assert ended.returncode == 0, ended.stdout[-5000:].decode()
    kept = json.loads((tmp_path / "results" / "results.json").read_text())["results"]
    assert {one["step"] for one in kept} == set(gpu["STEPS"])


def test_a_checkout_that_is_not_installed_has_its_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(checkout, "distribution", absent)
    (folder,) = checkout.entry_points.__wrapped__()
    (found,) = importlib.metadata.distributions(path=[folder])
    stated = tomllib.loads((checkout.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    for group, points in stated.items():
        assert {one.name: one.value for one in found.entry_points if one.group == group} == points


def test_packages_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = gpu["_is_installed"]
    monkeypatch.setitem(gpu["lacking"].__globals__, "_is_installed", lambda name: name != "orjson" and known(name))
    with pytest.raises(SystemExit, match="needs packages that are not installed: orjson; pip install"):
        gpu["main"](["--cpu"])
