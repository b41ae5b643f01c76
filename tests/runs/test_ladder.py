"""Ladder files: what they say, and what is wrong with the others."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from dvsel.errors import Notice, UserError
from dvsel.runs.ladder import Ladder

GOOD = [{"model": "owner/a", "score": 0.5}, {"model": "owner/b", "score": 0.25}, {"model": "owner/c", "score": 1}]


def write(folder: Path, content: Any) -> str:
    """A ladder file; a list is its models."""
    file = folder / "ladder.yaml"
    content = {"models": content} if isinstance(content, list) else content
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(file)


def changed(number: int, **values: Any) -> list[dict[str, Any]]:
    """The good ladder with one entry changed; None takes a key away."""
    entries = [dict(entry) for entry in GOOD]
    entries[number] = {key: value for key, value in (entries[number] | values).items() if value is not None}
    return entries


def complaint(folder: Path, content: Any) -> str:
    """What is said of a bad ladder, in one line with its place and a remedy."""
    url = write(folder, content)
    with pytest.raises(UserError) as refusal:
        Ladder.read(url)
    line = str(refusal.value)
    assert line.startswith(url) and "; " in line and "\n" not in line, line
    return line


def test_models_stand_in_the_order_of_their_scores(tmp_path: Path) -> None:
    ladder = Ladder.read(write(tmp_path, GOOD))
    assert [(rung.name, rung.model, rung.score) for rung in ladder.rungs] == [
        ("b", "owner/b", 0.25),
        ("a", "owner/a", 0.5),
        ("c", "owner/c", 1.0),
    ]
    assert ladder.pairs == [(0, 1), (0, 2), (1, 2)]


def test_several_benchmarks_count_by_their_mean(tmp_path: Path) -> None:
    scores = [{"arc": 0.5, "lambada": 0.1}, {"arc": 0.2, "lambada": 0.2}, {"lambada": 0.8, "arc": 0}]
    entries = [{"model": f"owner/{name}", "scores": one} for name, one in zip("abc", scores, strict=True)]
    assert [rung.score for rung in Ladder.read(write(tmp_path, entries)).rungs] == pytest.approx([0.2, 0.3, 0.4])


def test_folders_are_found_beside_the_ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rungs/small", "rungs/large", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    entries = [
        {"model": "rungs/small", "score": 1},
        {"model": "./rungs/large/", "score": 2, "name": "big one"},
        {"model": str(tmp_path / "elsewhere"), "score": 3},
        {"model": "gpt2", "score": 4},
    ]
    write(tmp_path, entries)
    monkeypatch.chdir(tmp_path / "rungs")
    rungs = Ladder.read("../ladder.yaml").rungs
    assert [rung.name for rung in rungs] == ["small", "big one", "elsewhere", "gpt2"]
    assert [Path(rung.model).resolve() for rung in rungs[:3]] == [
        tmp_path / "rungs" / "small",
        tmp_path / "rungs" / "large",
        tmp_path / "elsewhere",
    ]
    assert all(Path(rung.model).is_absolute() for rung in rungs[:3]) and rungs[3].model == "gpt2"


def test_models_that_tie_form_no_pair_and_are_told(tmp_path: Path) -> None:
    url = write(tmp_path, [*GOOD, {"model": "owner/d", "score": 0.5}])
    with pytest.warns(Notice, match=r"ladder.yaml: a, d have the same score 0.5"):
        ladder = Ladder.read(url)
    assert [rung.name for rung in ladder.rungs] == ["b", "a", "d", "c"]
    assert ladder.pairs == [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)]


def test_a_good_ladder_is_taken_in_silence(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Ladder.read(write(tmp_path, GOOD))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("models: [", "is not valid YAML"),
        ("- 1", "no ladder"),
        ("", "no ladder"),
        ({"models": {"a": 1}}, "no ladder"),
        ({"models": ["gpt2"]}, "no ladder"),
        ({"models": GOOD, "task": "arc"}, "unknown key 'task'"),
        (GOOD[:2], "a ladder of 2 models; it takes 3"),
        ([], "a ladder of 0 models"),
        (changed(0, scor=1), "model 1: unknown key 'scor'; did you mean 'score'?"),
        (changed(1, model=None), "model 2: no model"),
        (changed(1, model=7), "model 2: no model"),
        (changed(0, score=None), "model 1 (a): give it either `score: NUMBER` or `scores"),
        (changed(0, scores={"arc": 1}), "one of the two"),
        (changed(0, score="high"), "its score is 'high', no finite number"),
        (changed(0, score=True), "its score is True, no finite number"),
        (changed(0, score=float("nan")), "its score is nan, no finite number"),
        (changed(0, score=float("inf")), "its score is inf, no finite number"),
        (changed(0, score=None, scores={"arc": float("nan")}), "its score of arc is nan"),
        (changed(0, score=None, scores={}), "scores is {}"),
        (changed(0, score=None, scores={"arc": 0.5}), "differ in their benchmarks (arc)"),
        (changed(0, name="b"), "2 models are named"),
        (changed(0, name="B"), "2 models are named"),  # one folder on some systems
        (changed(0, name="a/b"), "cannot name a folder"),
        (changed(0, name=".a"), "cannot name a folder"),
        (changed(0, name=3), "cannot name a folder"),
        (changed(0, score=1), "3 models with 2 distinct scores; models that tie order no documents"),
        ([entry | {"score": 1} for entry in GOOD], "3 models with 1 distinct scores"),
        (changed(0, model="./none"), "there is no folder"),
        (changed(0, model="~nobody-of-that-name/a/b"), "there is no folder"),
        (changed(0, model="a/b" + "x" * 300 + "/c"), "there is no folder"),
        (changed(0, model="x" * 5000), "no model; write"),
        (changed(0, model="~/none-of-that-name"), "there is no folder"),
        (changed(0, model="a/b/c"), "there is no folder"),
        (changed(0, model="/none"), "there is no folder /none"),
        (changed(0, model="rungs/none"), "there is no folder"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_ladder_is_said(content: Any, says: str, tmp_path: Path) -> None:
    (tmp_path / "rungs").mkdir()
    assert says in complaint(tmp_path, content)


def test_a_ladder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml"):
        Ladder.read(str(tmp_path / "none.yaml"))
