"""Streams: one line in, one line out, in order; nothing on stdout but data."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
from pathlib import Path

import numpy as np
import pytest

import corpus
from commands import Answer, dvsel, failure, ok, one_line, run, start
from dvsel.commands.stream import score_field
from dvsel.score_files.reader import ScoreFile


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a.jsonl, fitted scorers of it, and its score file."""
    folder = tmp_path_factory.mktemp("stream")
    pool = corpus.write(folder / "a.jsonl", corpus.pool()[::4])
    target = corpus.write(folder / "target.jsonl", corpus.target())
    fit = ("fit", "dsir", "--pool", pool, "--target", target, "--min-words", 30)
    ok(*fit, "-o", folder / "dsir.fitted")
    ok(*fit, "--target", corpus.write(folder / "code.jsonl", corpus.pool()[-20:]), "--separate-targets",
       "-o", folder / "two.fitted")  # fmt: skip
    ok("score", "dsir", pool, "--fitted", folder / "dsir.fitted", "-w", 1, "-o", folder / "scores")
    return folder


def score(folder: Path, stdin: bytes, *more: object) -> Answer:
    return ok("score", "dsir", "--fitted", folder / "dsir.fitted", *more, "-", stdin=stdin)


# --- Scores. ---


def test_one_line_in_one_line_out_in_order_with_the_scores_of_the_score_file(folder: Path) -> None:
    lines = corpus.read_lines(folder / "a.jsonl")
    answer = score(folder, (folder / "a.jsonl").read_bytes())
    unscored = sum(b'"dvsel_dsir":null' in line for line in answer.out.splitlines())
    told = f"wrote {len(lines)} lines; {unscored} without a score: fewer than 30 words (--min-words)"
    assert answer.err == f"dvsel: {told}\n"
    found = answer.out.splitlines()
    assert len(found) == len(lines)
    for line, scored in zip(lines, found, strict=True):
        assert scored.startswith(line[:-1] + b',"dvsel_dsir":')
    scores = np.array([json.loads(line)["dvsel_dsir"] for line in found], np.float32)
    rows = next(ScoreFile(str(folder / "scores" / "a.jsonl.dvsel.parquet")).rows())
    assert np.isnan(scores).any()
    np.testing.assert_array_equal(scores, rows.score[:, 0])


def test_a_line_keeps_its_bytes(folder: Path) -> None:
    odd = [
        rb'{ "b" : 1 ,"text":"caf\u00e9 \/ \ud83d\ude00" , "a" : 1.50 }',
        b'{"text": "tabs", "n": 12345678901234567890, "z": {"k": [1 , 2]}, "a": null}',
    ]
    found = score(folder, b"\n".join(odd) + b"\n").out.splitlines()
    assert found == [line[:-1] + b',"dvsel_dsir":null}' for line in odd]


def test_windows_line_ends_and_a_last_line_without_an_end(folder: Path) -> None:
    answer = score(folder, b'{"text": "a"}\r\n{"text": "b"}')
    assert [json.loads(line) for line in answer.out.splitlines()] == [
        {"text": "a", "dvsel_dsir": None},
        {"text": "b", "dvsel_dsir": None},
    ]


def test_empty_input_gives_empty_output(folder: Path) -> None:
    assert score(folder, b"") == Answer(0, b"", "dvsel: wrote 0 lines\n")
    told = "dvsel: kept 0 of 0 lines; 0 beyond the bound, 0 without a score\n"
    assert ok("select", "--min-score", 0, "-", stdin=b"") == Answer(0, b"", told)


def test_the_field_can_be_named_and_replaces_one_that_is_there(folder: Path) -> None:
    document = corpus.pool()[1]
    line = corpus.lines([{"quality": "old", **document}])
    (scored,) = map(json.loads, score(folder, line, "--score-field", "quality").out.splitlines())
    assert isinstance(scored.pop("quality"), float)
    assert scored == document
    assert score(folder, score(folder, line).out).out == score(folder, line).out
    large = b'{"quality": 1, "n": 123456789012345678901234567890, "text": "\xc3\xa9"}\n'
    (scored,) = map(json.loads, score(folder, large, "--score-field", "quality").out.splitlines())
    assert scored == {"n": 123456789012345678901234567890, "text": "é", "quality": None}


def test_a_field_that_cannot_be_read_back_is_refused(folder: Path) -> None:
    words = ("score", "dsir", "--fitted", folder / "dsir.fitted", "--score-field", "a.b", "-")
    assert "--score-field" in failure(*words, stdin=corpus.lines(corpus.pool()[:1]))


def test_an_object_of_scores_for_several_targets(folder: Path) -> None:
    line = corpus.lines([corpus.pool()[1]])
    answer = ok("score", "dsir", "--fitted", folder / "two.fitted", "-", stdin=line)
    scores = json.loads(answer.out)["dvsel_dsir"]
    assert set(scores) == {"target.jsonl", "code.jsonl"}
    assert all(isinstance(score, float) for score in scores.values())


def test_standard_input_is_named_and_goes_to_standard_output(folder: Path, tmp_path: Path) -> None:
    """An empty variable in a job would otherwise have it read a stdin that is empty, and end well."""
    for words in (("score", "dsir", "--fitted", folder / "dsir.fitted"), ("select", "--min-score", 0)):
        for output in ((), ("-o", tmp_path / "out")):
            assert "- for lines from stdin" in failure(*words, *output)
        assert "drop -o" in failure(*words, "-", "-o", tmp_path / "out")


def test_the_field_is_an_identifier() -> None:
    assert score_field("label-noise") == "dvsel_label_noise"


def test_a_bad_line_fails_after_the_lines_before_it_or_is_skipped_and_counted(folder: Path) -> None:
    good = corpus.lines(corpus.pool()[:3])
    content = good + b"[]\n" + good
    message = failure("score", "dsir", "--fitted", folder / "dsir.fitted", "-", stdin=content)
    assert message.startswith("dvsel: stdin, line 4: ")
    answer = score(folder, content, "--on-bad-line", "skip")
    assert answer.out == score(folder, good).out * 2
    assert "skipped 1 lines" in answer.err


def test_skipped_lines_are_one_line_on_stderr_with_causes_and_numbers(folder: Path) -> None:
    good = corpus.lines(corpus.pool()[:1])
    answer = score(folder, b"\n" + good + b"[1]\n{\n" + good + b"\n" * 4, "--on-bad-line", "skip")
    causes = "5 blank line, 1 malformed JSON, 1 not a JSON object but an array"
    assert answer.err.splitlines(keepends=True)[1] == f"dvsel: skipped 7 lines (1, 3, 4, 6, 7, ...): {causes}\n"
    lines = b'{"dvsel_dsir": 1}\n{"dvsel_dsir": "x"}\n{}\n\n'
    answer = ok("select", "--min-score", 0, "--on-bad-line", "skip", "-", stdin=lines)
    causes = "1 blank line, 1 field 'dvsel_dsir' is not a number, 1 no field 'dvsel_dsir'"
    told = "dvsel: kept 1 of 4 lines; 0 beyond the bound, 0 without a score\n"
    assert answer.err == f"{told}dvsel: skipped 3 lines (2, 3, 4): {causes}\n"


def test_a_stream_needs_a_fitted_scorer(folder: Path) -> None:
    message = failure("score", "dsir", "--target", folder / "target.jsonl", "-", stdin=b"")
    assert "dvsel fit dsir" in message and "--fitted" in message


def answer_within(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], seconds)[0], "no answer"
    return process.stdout.readline()


def test_a_slow_producer_gets_its_answers_at_once(folder: Path) -> None:
    lines = corpus.lines(corpus.pool()[:4]).splitlines(keepends=True)
    words = ("score", "dsir", "--fitted", folder / "dsir.fitted", "-")
    with start(*words, stdin=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        for number, line in enumerate(lines):
            process.stdin.write(line)
            scored = json.loads(answer_within(process, 60 if number == 0 else 5))
            assert scored["id"] == json.loads(line)["id"]
        process.stdin.close()
        assert process.wait(10) == 0


# --- Thresholds. ---


def test_a_threshold_passes_lines_byte_for_byte(folder: Path) -> None:
    lines = [b'{"dvsel_dsir": 1.5}', b'{ "x":"\\u00e9","dvsel_dsir":0.2 }', b'{"dvsel_dsir":0.1999}',
             b'{"dvsel_dsir":null}', b'{"dvsel_dsir":-1e3}', b'{"dvsel_dsir":0.3}\r']  # fmt: skip
    answer = ok("select", "--min-score", 0.2, "-", stdin=b"\n".join(lines))
    assert answer.out == b"".join(lines[number] + b"\n" for number in (0, 1, 5))
    assert answer.err == "dvsel: kept 3 of 6 lines; 2 beyond the bound, 1 without a score\n"


def test_score_and_select_as_a_pipe_keep_what_the_files_keep(folder: Path, tmp_path: Path) -> None:
    scored = score(folder, (folder / "a.jsonl").read_bytes()).out
    scores = sorted(value for line in scored.splitlines() if (value := json.loads(line)["dvsel_dsir"]) is not None)
    bound = scores[len(scores) // 2]
    piped = ok("select", f"--min-score={bound}", "-", stdin=scored).out
    ok("select", folder / "scores", f"--min-score={bound}", "-w", 1, "-o", tmp_path / "out")
    assert {json.loads(line)["id"] for line in piped.splitlines()} == corpus.selected_ids(tmp_path / "out")


def test_the_score_of_another_field(folder: Path) -> None:
    lines = b'{"q": 1, "dvsel_dsir": -5}\n{"q": -1, "dvsel_dsir": 5}\n'
    assert ok("select", "--min-score", 0, "--score-field", "q", "-", stdin=lines).out == lines[:27]


@pytest.mark.parametrize("line", [b'{"text": "a"}', b'{"dvsel_dsir": "high"}', b'{"dvsel_dsir": true}', b"[]", b"{"])
def test_a_line_without_a_score_is_refused_or_skipped(line: bytes) -> None:
    content = b'{"dvsel_dsir": 1}\n' + line + b'\n{"dvsel_dsir": 2}\n'
    message = failure("select", "--min-score", 0, "-", stdin=content)
    assert message.startswith("dvsel: stdin, line 2: ")
    answer = ok("select", "--min-score", 0, "--on-bad-line", "skip", "-", stdin=content)
    assert answer.out == b'{"dvsel_dsir": 1}\n{"dvsel_dsir": 2}\n'
    assert "skipped 1 lines" in answer.err


def test_which_score_is_meant_must_be_clear() -> None:
    assert "--score-field" in failure("select", "--min-score", 0, "-", stdin=b'{"text": "a"}\n')
    two = b'{"dvsel_a": 1, "dvsel_b": 2}\n'
    assert "dvsel_a and dvsel_b" in failure("select", "--min-score", 0, "-", stdin=two)


@pytest.mark.parametrize("more", [("--budget", "10%"), ("--quantile", "0.5"), ("--method", "topk"), ("--dedup",)])
def test_what_needs_the_whole_pool_is_refused_on_a_stream(more: tuple[str, ...]) -> None:
    message = failure("select", *more, "-", stdin=b'{"dvsel_dsir": 1}\n')
    assert "score files" in message


# --- Pipes. ---


def test_select_to_stdout_writes_the_kept_lines_and_nothing_else(folder: Path) -> None:
    answer = run("select", folder / "scores", "--budget", "30%", "--method", "topk", "-w", 1, "-o", "-")
    assert answer.code == 0
    lines = set(corpus.read_lines(folder / "a.jsonl"))
    found = answer.out.splitlines()
    assert found and set(found) < lines
    assert "selected" in answer.err


@pytest.mark.parametrize("command", ["select", "score"])
def test_a_closed_pipe_ends_quietly(command: str, folder: Path) -> None:
    words: tuple[object, ...] = ("select", folder / "scores", "--budget", "100%", "--quiet", "-w", 1, "-o", "-")
    source = subprocess.DEVNULL
    if command == "score":
        words = ("score", "dsir", "--fitted", folder / "dsir.fitted", "-")
        source = subprocess.PIPE
    with start(*words, stdin=source) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        if process.stdin:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write((folder / "a.jsonl").read_bytes() * 2)
                process.stdin.close()
        err = process.stderr.read()
        assert process.wait(60) == 0
        assert err == b""


def test_a_bad_line_on_a_real_pipe_exits_with_1(folder: Path) -> None:
    answer = run("score", "dsir", "--fitted", folder / "dsir.fitted", "-", stdin=b"{\n")
    assert answer.code == 1
    assert one_line(answer.err).startswith("dvsel: stdin, line 1: ")


def test_help_on_a_terminal_instead_of_waiting_for_input() -> None:
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    with start("score", "dsir", stdin=follower) as process:
        assert process.wait(30) != 0
    assert dvsel("score", "dsir", "--help").code == 0
    del leader
