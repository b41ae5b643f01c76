"""`dvsel embed`: a vector of every document, beside its shard, and pools that come with vectors."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import corpus
import language_models
from commands import failure, ok
from dvsel.documents.columns import Status
from dvsel.embeddings import EmbedderOptions
from dvsel.pool.sources import expand_pool
from dvsel.runs.output_folder import REPORT
from dvsel.score_files.reader import ScoreFile, VectorReader
from embedded_pool import MAKER, embed, write_pool

pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("one_thread")

DOCUMENTS = corpus.pool()[:60]
SHARDS = ("pool/a.jsonl", "pool/b.jsonl.zst")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models, a pool of two shards, and the pool embedded in emb/."""
    folder = tmp_path_factory.mktemp("embed")
    language_models.build(folder / "model", window=32)
    language_models.build(folder / "other", window=32, seed=1)
    corpus.write(folder / "pool" / "a.jsonl", DOCUMENTS[:40])
    corpus.write(folder / "pool" / "b.jsonl.zst", corpus.lines(DOCUMENTS[40:]) + b'{"text": ""}\n')
    corpus.write(folder / "target.jsonl", corpus.target()[:5])
    ok("embed", folder / "pool", "--model", folder / "model", "-o", folder / "emb")
    return folder


def vectors(out: Path) -> np.ndarray:
    """All vectors, in the order of the shards' names."""
    files = [ScoreFile(str(path)) for path in sorted(out.rglob("*.dvsel.parquet"))]
    return np.concatenate([rows.vectors for file in files for rows in file.rows(("vector",))])


def scores(out: Path) -> np.ndarray:
    files = [ScoreFile(str(path)) for path in sorted(out.rglob("*.dvsel.parquet"))]
    return np.concatenate([rows.score for file in files for rows in file.rows(())])


def test_a_file_of_vectors_beside_each_shard(folder: Path) -> None:
    from dvsel.embeddings.encoder import Embedder

    texts = [document["text"] for document in DOCUMENTS]
    expected = Embedder(EmbedderOptions(model=str(folder / "model"))).embed(texts)
    found = vectors(folder / "emb")
    assert found.dtype == np.float16 and found.shape == (61, 32)
    np.testing.assert_allclose(found[:60], expected, atol=2e-3, rtol=2e-3)
    assert np.isnan(found[60]).all()


def test_a_shard_that_cannot_be_read_can_be_left_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    corpus.write(tmp_path / "pool" / "a.jsonl", DOCUMENTS[:5])
    (tmp_path / "pool" / "b.jsonl.zst").write_bytes(b"no zstd")
    words = ("embed", tmp_path / "pool", "--model", folder / "model", "-o", tmp_path / "emb")
    failure(*words)
    assert "left out 1 files that cannot be read:" in ok(*words, "--on-bad-file", "skip").err
    err = ok("select", tmp_path / "emb", "--method", "coverage", "--budget", "2 docs", "-o", tmp_path / "out").err
    assert "left out 1 files" in err and len(corpus.selected_ids(tmp_path / "out")) == 2
    near = ("score", "target", tmp_path / "emb", "--target", folder / "target.jsonl", "-o", tmp_path / "near")
    assert "is not zstd data" in failure(*near)
    assert "left out 1 files" in ok(*near, "--on-bad-file", "skip").err


def test_queries_of_another_shape_take_turns(folder: Path, tmp_path: Path) -> None:
    asked = [{"question": document["text"]} for document in DOCUMENTS[:3]]
    words = ("--method", "round-robin", "--queries", corpus.write(tmp_path / "q.jsonl", asked), "--budget", "3 docs")
    words = ("select", folder / "emb", *words, "-o", tmp_path / "out")  # type: ignore[assignment]
    assert "did you mean" in failure(*words, "--target-text-field", "questions")
    ok(*words, "--target-text-field", "question")
    assert corpus.selected_ids(tmp_path / "out") == {document["id"] for document in DOCUMENTS[:3]}


def test_rows_say_what_selection_needs(folder: Path) -> None:
    scored = folder / "dsir"
    ok("score", "dsir", folder / "pool", "--target", folder / "target.jsonl", "-o", scored)
    for name in ("a.jsonl", "b.jsonl.zst"):
        (own,) = ScoreFile(str(folder / "emb" / f"{name}.dvsel.parquet")).rows()
        (other,) = ScoreFile(str(scored / f"{name}.dvsel.parquet")).rows()
        for column in ("key", "text_hash", "tokens", "bytes"):
            np.testing.assert_array_equal(getattr(own, column), getattr(other, column))
    assert own.status.tolist() == [Status.SCORED] * 20 + [Status.EMPTY_TEXT]
    assert np.isnan(own.score[:, 0]).tolist() == [False] * 20 + [True]


def test_other_tools_can_read_the_vectors(folder: Path) -> None:
    table = pq.read_table(folder / "emb" / "a.jsonl.dvsel.parquet")
    read = np.frombuffer(table["vector"].chunk(0).buffers()[1], "f2").reshape(-1, 32)
    np.testing.assert_array_equal(read, vectors(folder / "emb")[:40])


def test_the_same_bytes_again_and_nothing_done_twice(folder: Path, tmp_path: Path) -> None:
    ok("embed", folder / "pool", "--model", folder / "model", "-o", tmp_path / "emb")
    files = sorted((tmp_path / "emb").glob("*.parquet"))
    assert [path.read_bytes() for path in files] == [(folder / "emb" / path.name).read_bytes() for path in files]
    files[0].unlink()
    before = files[1].stat().st_mtime_ns
    ok("embed", folder / "pool", "--model", folder / "model", "-o", tmp_path / "emb")
    assert files[0].read_bytes() == (folder / "emb" / files[0].name).read_bytes()
    assert files[1].stat().st_mtime_ns == before
    assert "dtype" in failure(
        "embed", folder / "pool", "--model", folder / "model", "--dtype", "float32", "-o", tmp_path / "emb"
    )


def test_float32_holds_what_the_model_gives(folder: Path, tmp_path: Path) -> None:
    ok("embed", folder / "pool" / "a.jsonl", "--model", folder / "model", "--dtype", "float32", "-o", tmp_path / "emb")
    found = vectors(tmp_path / "emb")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.astype(np.float16), vectors(folder / "emb")[:40])


def test_the_report_says_what_was_made(folder: Path) -> None:
    report = json.loads((folder / "emb" / REPORT).read_text())
    assert report["width"] == 32 and report["dtype"] == "float16"
    assert report["embedder"]["pooling"] == "weighted-mean" and report["embedder"]["layer"] == 2
    assert report["totals"]["docs"] == 60


def test_a_recipe_replays_it(folder: Path, tmp_path: Path) -> None:
    ok("run", folder / "emb" / "recipe.yaml", "-o", tmp_path / "again")
    np.testing.assert_array_equal(vectors(tmp_path / "again"), vectors(folder / "emb"))


def test_inspect_says_what_vectors_there_are(folder: Path) -> None:
    told = ok("inspect", folder / "emb").out.decode()
    assert told.startswith("embedded ") and f"with {folder / 'model'}" in told and "vectors of " in told
    report = json.loads(ok("inspect", folder / "emb", "--json").out)
    assert report["report"] == json.loads((folder / "emb" / REPORT).read_text())
    assert sum(share["pool_docs"] for share in report["domains"].values()) == report["report"]["totals"]["docs"]


# --- A pool of embeddings in the place of its shards. ---


def test_scores_are_those_of_the_texts(folder: Path, tmp_path: Path) -> None:
    """The model that embeds the target is the one that made the pool's vectors."""
    words = ("--preset", "rds-max", "--target", folder / "target.jsonl")
    ok("score", "target", folder / "emb", *words, "-o", tmp_path / "of-vectors")
    ok("score", "target", folder / "pool", "--model", folder / "model", *words, "-o", tmp_path / "of-texts")
    np.testing.assert_allclose(scores(tmp_path / "of-vectors"), scores(tmp_path / "of-texts"), atol=2e-3)


def test_a_sample_of_vectors_is_that_of_the_texts(folder: Path, tmp_path: Path) -> None:
    words = ("--preset", "got-d", "--fit-documents", 30, "--target", folder / "target.jsonl")
    ok("score", "target", folder / "emb", *words, "-o", tmp_path / "of-vectors")
    ok("score", "target", folder / "pool", "--model", folder / "model", *words, "-o", tmp_path / "of-texts")
    np.testing.assert_allclose(scores(tmp_path / "of-vectors"), scores(tmp_path / "of-texts"), atol=5e-3)


def test_other_scorers_read_the_texts_of_an_embedded_pool(folder: Path, tmp_path: Path) -> None:
    ok("score", "dsir", folder / "emb", "--target", folder / "target.jsonl", "-o", tmp_path / "scores")
    np.testing.assert_array_equal(scores(tmp_path / "scores"), scores(folder / "dsir"))


def test_one_file_of_vectors_can_be_named(folder: Path) -> None:
    (shard,) = expand_pool([str(folder / "emb" / "a.jsonl.dvsel.parquet")])
    assert shard.url == str(folder / "pool" / "a.jsonl") and shard.vectors


def test_vectors_and_texts_in_one_pool_are_refused(folder: Path, tmp_path: Path) -> None:
    assert "embed these too" in failure(
        "score", "target", folder / "emb", folder / "pool" / "a.jsonl", "--target", folder / "target.jsonl",
        "-o", tmp_path / "scores",
    )  # fmt: skip


def test_vectors_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    ok("embed", folder / "pool", "--model", folder / "other", "-o", tmp_path / "emb")
    words = ("--preset", "rds-max", "--target", folder / "emb", "-o", tmp_path / "scores")
    assert "the model's files differ" in failure("score", "target", tmp_path / "emb", *words)
    ok("fit", "target", "--preset", "rds-max", "--target", folder / "emb", "-o", tmp_path / "target.fitted")
    assert "embed both with the same model and options" in failure(
        "score", "target", tmp_path / "emb", "--fitted", tmp_path / "target.fitted", "-o", tmp_path / "scores"
    )


def test_a_shard_that_changed_since_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "pool", tmp_path / "pool")
    ok("embed", tmp_path / "pool", "--model", folder / "model", "-o", tmp_path / "emb")
    corpus.write(tmp_path / "pool" / "a.jsonl", DOCUMENTS[:39])
    words = ("--preset", "rds-max", "--target", folder / "target.jsonl", "-o", tmp_path / "scores")
    assert "changed after it was" in failure("score", "target", tmp_path / "emb", *words)


def test_large_plain_shards_are_read_whole_beside_their_vectors(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvsel.shards.digest.RANGE", 5_000)
    ok("embed", folder / "pool", "--model", folder / "model", "-o", tmp_path / "emb")
    np.testing.assert_array_equal(vectors(tmp_path / "emb"), vectors(folder / "emb"))
    words = ("--preset", "rds-max", "--target", folder / "target.jsonl")
    for emb in (folder / "emb", tmp_path / "emb"):
        ok("score", "target", emb, *words, "-o", tmp_path / f"scores-{emb.parent.name}")
    np.testing.assert_array_equal(
        scores(tmp_path / f"scores-{tmp_path.name}"), scores(tmp_path / f"scores-{folder.name}")
    )


def test_a_reader_gives_rows_in_any_portions(tmp_path: Path) -> None:
    values = np.arange(30, dtype=np.float32).reshape(10, 3)
    write_pool(tmp_path, [{"text": f"text {row}"} for row in range(10)], shards=1)
    reader = VectorReader(str(embed(tmp_path, values) / "0.jsonl.dvsel.parquet"))
    parts = [reader.take(count) for count in (3, 0, 7)]
    assert all(part is not None and part.maker == MAKER for part in parts)
    np.testing.assert_array_equal(np.concatenate([part.values for part in parts if part]), values)
    assert reader.take(1) is None


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("pool",), "no model"),
        (("--model", "model"), "nothing to embed"),
        (("pool", "--model", "nowhere/at/all"), "no such folder"),
        (("pool", "--model", "model", "--layer", "9"), "layer"),
        (("pool", "--model", "model", "--max-tokens", "-1"), "out of range"),
    ],
)
def test_what_cannot_be_embedded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], cause: str
) -> None:
    monkeypatch.chdir(folder)
    assert cause in failure("embed", *words, "-o", tmp_path / "emb")


def test_a_vector_that_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    from dvsel.commands.embed import _Embedding  # a model with such vectors would be a strange one
    from dvsel.documents.tokens import BUILT_IN
    from dvsel.errors import UserError
    from dvsel.runs.requests import Reading

    task = _Embedding(EmbedderOptions(model="large"), "float16", Reading(), BUILT_IN)
    with pytest.raises(UserError, match="pass --dtype float32"):
        task._narrowed(np.array([[1e5]], np.float32))


def test_the_fingerprint_is_of_the_model_and_not_of_its_folder(tmp_path: Path) -> None:
    write_pool(tmp_path, [{"text": "a"}, {"text": "b"}], shards=1)

    def fingerprint(name: str, **maker: object) -> str:
        folder = embed(tmp_path, np.eye(2, dtype=np.float32), dataclasses.replace(MAKER, **maker), name)  # type: ignore[arg-type]
        return ScoreFile(str(folder / "0.jsonl.dvsel.parquet")).header.fingerprint

    first = fingerprint("first")
    assert fingerprint("moved", model="elsewhere/made-up") == first
    assert fingerprint("other", digest="01") != first
