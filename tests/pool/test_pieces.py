"""A stop in a shard that takes long loses little: pieces are kept, and the result is that of an undisturbed run."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import corpus
from commands import ok, start
from dvsel.pool import annotate
from dvsel.progress import Done, showing
from dvsel.score_files.find import SUFFIX
from dvsel.score_files.reader import ScoreFile
from plugin_packages import SLOW, install

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sends signals")

# The command line with small batches, of which each few tenths of a second are a piece.
SMALL = "import dvsel.cli, dvsel.pool.annotate as r; r.PIECE_SECONDS = 0.1; r._SLOW_BLOCK = 10_000; dvsel.cli.main()"
NAMES = ("a.jsonl", "b.jsonl.zst", "c.parquet")


@pytest.fixture(autouse=True, scope="module")
def interruptible() -> Iterator[None]:
    """A shell has the background jobs that it starts ignore Ctrl-C, and they their children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    for number, name in enumerate(NAMES):
        corpus.write(folder / name, [one | {"id": f"{name}/{one['id']}"} for one in corpus.pool()[number::5]])
    (folder / "a.jsonl").write_bytes((folder / "a.jsonl").read_bytes() + b"no document\n")
    return folder


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that knows the slow scorer."""
    folder = tmp_path_factory.mktemp("site")
    return install(folder, "slow-scorer", SLOW, {"slow": "Slow"}) | {"ASKED": str(folder / "asked")}


def started(
    pool: Path, out: Path, known: dict[str, str], *more: object, seconds: float = 0.005
) -> subprocess.Popen[bytes]:
    """A run that has begun; seconds: for a document."""
    words = ("score", "slow", pool, "--on-bad-line", "skip", "-o", out, "-w", 1, *more)
    return start(*words, command=(sys.executable, "-c", SMALL), env=known | {"SECONDS": str(seconds)})


def pieces(out: Path) -> list[Path]:
    return [path for path in (out / annotate.PARTS).rglob("*.rows") if not path.name.startswith(".")]


def finish(pool: Path, out: Path, known: dict[str, str], *more: object) -> None:
    with started(pool, out, known, *more, seconds=0) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


@pytest.fixture(scope="module")
def undisturbed(pool: Path, known: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(pool, out, known)
    assert not (out / annotate.PARTS).exists()
    return {name: content for name, content in corpus.tree(out).items() if name.endswith(SUFFIX)}


def asked(known: dict[str, str]) -> int:
    """How many documents the scorer was asked about so far."""
    place = Path(known["ASKED"])
    return sum(map(int, place.read_text().split())) if place.exists() else 0


def stopped(process: subprocess.Popen[bytes], known: dict[str, str], moment: random.Random, how: int) -> str:
    """Stop a run once some more documents were scored, and a moment later; what it said."""
    wanted, end = asked(known) + moment.randrange(60, 90), time.monotonic() + 60
    while asked(known) < wanted:
        assert process.poll() is None and time.monotonic() < end, "it is over, or hangs"
        time.sleep(0.005)
    time.sleep(moment.uniform(0, 0.1))
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    return err.decode()


def test_stopped_again_and_again(
    pool: Path, known: dict[str, str], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    moment, before = random.Random(0), asked(known)
    rounds = (signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGINT)
    for how in rounds:
        with started(pool, tmp_path / "out", known) as process:
            err = stopped(process, known, moment, how)
        if how == signal.SIGINT:
            assert process.returncode == 130, err
            assert err.startswith("dvsel: interrupted; kept: ") and "the same command goes on from here" in err
            assert err.count("\n") == 1
    finish(pool, tmp_path / "out", known)
    found = {name: content for name, content in corpus.tree(tmp_path / "out").items() if name.endswith(SUFFIX)}
    assert found == undisturbed
    assert not (tmp_path / "out" / annotate.PARTS).exists()
    documents = sum(len(ScoreFile(str(tmp_path / "out" / f"{name}{SUFFIX}"))) for name in NAMES)
    a_piece_and_a_batch = 50 + 30
    assert asked(known) - before <= documents + len(rounds) * a_piece_and_a_batch


def test_ctrl_c_says_what_is_kept(pool: Path, known: dict[str, str], tmp_path: Path) -> None:
    with started(pool, tmp_path / "out", known) as process:
        err = stopped(process, known, random.Random(1), signal.SIGINT)
    kept = sum(len(ScoreFile(str(path))) for path in pieces(tmp_path / "out"))
    assert kept > 0
    said = f"kept: 0 of 3 shards and {kept:,} documents of others; the same command goes on from here"
    assert err == f"dvsel: interrupted; {said}\n"


@pytest.mark.parametrize("name", ["a.jsonl", "c.parquet"])
def test_a_shard_that_changed_meanwhile_is_refused(
    name: str, pool: Path, known: dict[str, str], tmp_path: Path
) -> None:
    shard = corpus.write(tmp_path / name, (documents := list(map(dict, corpus.pool()[:150]))))
    with started(shard, tmp_path / "out", known) as process:
        stopped(process, known, random.Random(2), signal.SIGKILL)
    assert pieces(tmp_path / "out")
    documents[0]["text"] = documents[0]["text"][::-1]  # as long as it was
    documents[0]["id"] = documents[0]["id"][:-1] + "x"
    corpus.write(tmp_path / name, documents)
    with started(shard, tmp_path / "out", known) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "changed after it was scored or embedded; do it again" in err.decode()


def test_a_new_date_alone_is_no_change(
    pool: Path, known: dict[str, str], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    shard = corpus.write(tmp_path / "a.jsonl", (pool / "a.jsonl").read_bytes())
    with started(shard, tmp_path / "out", known) as process:
        stopped(process, known, random.Random(3), signal.SIGKILL)
    before = asked(known)
    corpus.write(tmp_path / "a.jsonl", (pool / "a.jsonl").read_bytes())
    finish(shard, tmp_path / "out", known)
    assert asked(known) - before < len(ScoreFile(str(tmp_path / "out" / f"a.jsonl{SUFFIX}")))


def test_pieces_of_other_options_are_not_used(pool: Path, known: dict[str, str], tmp_path: Path) -> None:
    with started(pool, tmp_path / "out", known) as process:
        stopped(process, known, random.Random(4), signal.SIGKILL)
    assert pieces(tmp_path / "out")
    finish(pool, tmp_path / "out", known, "--bonus", 7, "--overwrite")
    (rows,) = ScoreFile(str(tmp_path / "out" / f"c.parquet{SUFFIX}")).rows()
    assert (rows.score[:, 0] == rows.bytes + 7).all()


# --- Any scorer, in this process, with a piece for each batch. ---


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return corpus.write(tmp_path / "target.jsonl", corpus.target())


def score(pool: Path, target: Path, out: Path, *more: object) -> dict[str, bytes]:
    ok("score", "dsir", pool, "--target", target, "--on-bad-line", "skip", "-o", out, "-w", 1, *more)
    return {name: content for name, content in corpus.tree(out).items() if name.endswith(SUFFIX)}


def test_pieces_change_nothing_in_the_files(
    pool: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotate, "BLOCK", 20_000)
    whole = score(pool, target, tmp_path / "whole")
    monkeypatch.setattr(annotate, "PIECE_SECONDS", 0.0)
    joined: list[int] = []
    absorb = annotate.ScoreFileWriter.absorb  # type: ignore[attr-defined]
    monkeypatch.setattr(
        annotate.ScoreFileWriter,  # type: ignore[attr-defined]
        "absorb",
        lambda writer, part: (joined.append(len(part)), absorb(writer, part))[1],  # type: ignore[func-returns-value]
    )
    assert score(pool, target, tmp_path / "pieces") == whole
    assert len(joined) > 2 * len(NAMES)


def test_pieces_of_ranges_too(pool: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotate, "BLOCK", 20_000)
    monkeypatch.setattr("dvsel.shards.digest.RANGE", 50_000)
    whole = score(pool, target, tmp_path / "whole")
    monkeypatch.setattr(annotate, "PIECE_SECONDS", 0.0)
    assert score(pool, target, tmp_path / "pieces") == whole


def test_pieces_of_several_processes_too(
    pool: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = score(pool, target, tmp_path / "whole")
    monkeypatch.setattr(annotate, "PIECE_SECONDS", 0.0)
    assert score(pool, target, tmp_path / "pieces", "-w", 2) == whole


def test_a_stop_between_the_last_piece_and_the_whole_file(
    pool: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotate, "BLOCK", 20_000)
    whole = score(pool, target, tmp_path / "whole")
    monkeypatch.setattr(annotate, "PIECE_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(annotate, "_join", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(AssertionError, match="kept: 0 of 3 shards and"):
            score(pool, target, tmp_path / "out")
    assert score(pool, target, tmp_path / "out") == whole


@pytest.mark.parametrize("size", [1 << 30, 50_000], ids=["pieces", "ranges"])
def test_what_a_run_of_other_options_left_is_not_used(
    size: int, pool: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without a finished file goes to a run with other options, which may be of the same fit."""
    monkeypatch.setattr(annotate, "BLOCK", 20_000)
    monkeypatch.setattr("dvsel.shards.digest.RANGE", size)
    monkeypatch.setattr(annotate, "PIECE_SECONDS", 0.0)
    ok("fit", "dsir", "--pool", pool, "--target", target, "--on-bad-line", "skip", "-o", tmp_path / "dsir.fitted")

    def run(out: str, *more: object) -> dict[str, bytes]:
        fitted = ("--fitted", tmp_path / "dsir.fitted", "--on-bad-line", "skip", "-w", 1)
        ok("score", "dsir", pool, *fitted, "-o", tmp_path / out, *more)
        return {name: content for name, content in corpus.tree(tmp_path / out).items() if name.endswith(SUFFIX)}

    other = run("other", "--domain-field", "id")
    with monkeypatch.context() as patch:
        what = "_join" if size > 1 << 20 else "_merge"
        patch.setattr(annotate, what, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(AssertionError, match="kept: 0 of 3 shards and"):
            run("out")
    assert run("out", "--domain-field", "id") == other


def test_progress_counts_what_an_earlier_start_did(
    pool: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvsel.commands.score import score as run
    from dvsel.runs.requests import Execution, Fitting, Reading, ScoreRun
    from dvsel.scorers.dsir import DSIR

    told: list[tuple[Done, int]] = []

    def tell(stage: str, done: Done, total: int) -> None:
        if stage == "scoring":
            told.append((done, total))

    scoring = ScoreRun(
        scorer=DSIR(),
        pool=(str(pool),),
        fitting=Fitting(target=(str(target),)),
        reading=Reading(on_bad_line="skip"),
        output=str(tmp_path / "out"),
    )
    with showing(tell):
        run(scoring, Execution(workers=1))
    done, total = told[-1]
    size = sum((pool / name).stat().st_size for name in NAMES)
    files = [ScoreFile(str(tmp_path / "out" / f"{name}{SUFFIX}")) for name in NAMES]
    assert (done.bytes, total, done.before) == (size, size, 0)
    assert done.documents == sum(map(len, files)) and done.tokens > 0
    (tmp_path / "out" / f"a.jsonl{SUFFIX}").unlink()
    told.clear()
    with showing(tell):
        run(scoring, Execution(workers=1))
    done, total = told[-1]
    assert (done.bytes, total, done.before) == (size, size, size - (pool / "a.jsonl").stat().st_size)
    assert done.documents == sum(map(len, files))
