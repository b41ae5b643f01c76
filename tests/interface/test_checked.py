"""Scorers and selectors of other packages that misbehave: one line names them and what they gave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import corpus
from commands import failure, ok, one_line, start
from dvsel.interface.registry import scorer_class
from dvsel.testing import check_scorer
from plugin_packages import install

# Each scorer does what its option says, and is well-behaved without.
SOURCE = """
from dataclasses import dataclass
import numpy as np
from dvsel.options import option
from dvsel.scorers import Fitted, Scorer
from dvsel.selectors import Selector, SetSelector

class FittedOdd(Fitted):
    unscored = "too odd"
    def score(self, batch):
        good = batch.text.sizes.astype(np.float32)
        return {
            "": lambda: good,
            "shape": lambda: np.stack([good, good], 1),
            "one": lambda: np.float32(3),
            "float64": lambda: good.astype(float),
            "list": lambda: good.tolist(),
            "none": lambda: None,
            "nan": lambda: good * np.nan,
            "score": lambda: {}["no such key"],
            "file": lambda: open("/no/such/file"),
        }[self.scorer.wrong]()

@dataclass(frozen=True)
class Odd(Scorer):
    "Prefer what is odd."
    fitted = FittedOdd
    wrong: str = option("", "what to do wrong")
    def fit(self, pool, targets):
        if self.wrong == "fit":
            1 / 0
        return {} if self.wrong == "dict" else FittedOdd(self, {"a": [1.0]} if self.wrong == "arrays" else {})

@dataclass(frozen=True)
class Rule(Selector):
    "Keep what is odd."
    flaw: str = option("", "what to do wrong")
    def key(self, score, uniform):
        return {
            "": lambda: score,
            "key": lambda: 1 / 0,
            "shape": lambda: score[:1],
            "float64": lambda: score.astype(float),
            "generous": lambda: np.nan_to_num(score),
        }[self.flaw]()

@dataclass(frozen=True)
class Whole(SetSelector):
    "Keep what is odd, among all."
    flaw: str = option("", "what to do wrong")
    looks_at_vectors = False
    def rank(self, candidates):
        if self.flaw == "rank":
            candidates.no_such_thing
        for part in candidates.parts():
            candidates.keys[part.first : part.first + len(part)] = part.score[:, 0]
        if self.flaw == "keys":
            candidates.keys = candidates.keys[:1]
        return "done" if self.flaw == "notes" else []
"""
PACKAGE = "of the package odd-things 1.0"


@pytest.fixture(scope="module", autouse=True)
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a process that knows the package, as this one does."""
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield install(folder, "odd-things", SOURCE, {"odd": "Odd"}, {"rule": "Rule", "whole": "Whole"})


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    for name in ("a.jsonl", "b.jsonl"):
        corpus.write(folder / name, [{"id": f"{name}{one}", "text": "x" * one} for one in range(1, 6)])
    return folder


@pytest.fixture(scope="module")
def scores(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "scores"
    ok("score", "odd", pool, "-o", folder)
    return folder


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("shape", "score gave float32 of shape (5, 2), not float32 of shape (5,)"),
        ("one", "score gave float32 np.float32(3.0), not float32 of shape (5,)"),
        ("float64", "score gave float64 of shape (5,), not float32 of shape (5,)"),
        ("list", "score gave list [1.0, 2.0, 3.0, 4.0, 5.0], not float32 of shape (5,)"),
        ("none", "score gave NoneType None, not float32 of shape (5,)"),
        ("score", "score failed (KeyError: 'no such key')"),
        ("file", "score failed (FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file')"),
        ("fit", "fit failed (ZeroDivisionError: division by zero)"),
        ("dict", "fit gave dict {}, not a Fitted"),
        ("arrays", "fit gave list [1.0] for 'a', not an array"),
    ],
)
def test_a_scorer_is_named(wrong: str, says: str, pool: Path, tmp_path: Path) -> None:
    line = failure("score", "odd", pool, "--wrong", wrong, "-o", tmp_path / "out", "-w", 1)
    assert line.startswith(f"dvsel: scorer 'odd' {PACKAGE}: {says}; ")


def test_in_workers_too_and_debug_shows_where(pool: Path, known: dict[str, str], tmp_path: Path) -> None:
    words = ("score", "odd", pool, "--wrong", "score", "-o", tmp_path / "out", "-w", 2)
    for debug in ((), ("--debug",)):
        with start(*words, *debug, env=known) as process:
            _, err = process.communicate(timeout=120)
        assert process.returncode == 1
        if debug:
            assert b"Traceback" in err and b'{}["no such key"]' in err
        else:
            assert f"scorer 'odd' {PACKAGE}: score failed" in one_line(err.decode())


def test_on_a_stream_too() -> None:
    line = failure("score", "odd", "--wrong", "list", "-", stdin=b'{"text": "a"}\n')
    assert f"scorer 'odd' {PACKAGE}: score gave list" in line


@pytest.mark.parametrize(
    ("method", "flaw", "says"),
    [
        ("rule", "key", "key failed (ZeroDivisionError: division by zero)"),
        ("rule", "shape", "key gave float32 of shape (1,), not float32 of shape (2,)"),
        ("rule", "float64", "key gave float64 of shape (2,), not float32 of shape (2,)"),
        ("whole", "rank", "rank failed (AttributeError: 'Survey' object has no attribute 'no_such_thing')"),
        ("whole", "keys", "rank left keys that are float32 of shape (1,), not float32 of shape (10,)"),
        ("whole", "notes", "rank gave 'done', not a list of lines"),
    ],
)
def test_a_selector_is_named(method: str, flaw: str, says: str, scores: Path, tmp_path: Path) -> None:
    words = ("select", scores, "--method", method, "--flaw", flaw, "--budget", "3 docs", "-o", tmp_path / "out")
    assert failure(*words).startswith(f"dvsel: selector {method!r} {PACKAGE}: {says}; ")


def test_a_selector_that_keeps_what_has_no_score_is_named(tmp_path: Path) -> None:
    pool = corpus.write(tmp_path / "a.jsonl", [{"text": "a"}, {"text": ""}])
    ok("score", "odd", pool, "-o", tmp_path / "scores")
    words = ("--method", "rule", "--flaw", "generous", "--budget", "1 docs", "-o", tmp_path / "out")
    line = failure("select", tmp_path / "scores", *words)
    assert "key gave a number, not NaN, for a document without a score" in line


def test_those_that_behave_pass(scores: Path, tmp_path: Path) -> None:
    for method in ("rule", "whole"):
        words = ("select", scores, "--method", method, "--budget", "3 docs", "-o", tmp_path / method)
        assert "selected 3 of 10" in ok(*words).err


def test_no_score_at_all_is_an_error_that_says_why(pool: Path, tmp_path: Path) -> None:
    line = failure("score", "odd", pool, "--wrong", "nan", "-o", tmp_path / "out")
    says = "none of 10 documents has a score (10 too odd), so nothing can be selected; check"
    assert line.startswith(f"dvsel: {tmp_path}/out: {says}")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.parquet")), "its score files can be looked at"
    assert says in failure("select", tmp_path / "out", "--budget", "10%", "-o", tmp_path / "selected")
    assert not (tmp_path / "selected").exists()


def test_one_document_with_a_score_is_enough(tmp_path: Path) -> None:
    documents = [{"text": "word " * count} for count in (3, 200)]
    pool = corpus.write(tmp_path / "a.jsonl", documents)
    target = corpus.write(tmp_path / "target.jsonl", documents[1:])
    words = ("score", "dsir", pool, "--target", target)
    assert "scored 1 of 2" in ok(*words, "-o", tmp_path / "out").err
    short = corpus.write(tmp_path / "short.jsonl", documents[:1])
    line = failure("score", "dsir", short, "--target", target, "--min-words", 10, "-o", tmp_path / "none")
    assert "none of 1 documents has a score (1 fewer than 10 words" in line


@pytest.mark.parametrize("wrong", ["shape", "float64", "list", "none"])
def test_the_checks_find_them_too(wrong: str) -> None:
    scorer = scorer_class("odd")(wrong=wrong)  # type: ignore[call-arg]
    with pytest.raises(AssertionError, match=r"score gave .*, not float32 of shape .*"):
        check_scorer(scorer, ["a", "bc", "def"])
