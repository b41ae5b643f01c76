"""The sample: which documents, how much text, and that nothing but the documents decides."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dvsel.documents.columns import Column
from dvsel.documents.hashing import combine, hash_rows, uniform
from dvsel.errors import UserError
from dvsel.pool.sample import Sample, draw_sample
from dvsel.progress import Done, showing
from dvsel.runs.requests import Reading, Sampling
from dvsel.shards.expand import expand
from dvsel.storage.places import Shard

Document = tuple[str, str]  # id, text

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


def documents(count: int, seed: int = 0) -> list[Document]:
    random = np.random.default_rng(seed)
    return [(str(at), " ".join(random.choice(WORDS, random.integers(1, 60)))) for at in range(count)]


def write_shards(folder: Path, shards: list[list[Document]], compress: bool = False) -> list[Shard]:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for number, shard in enumerate(shards):
        content = "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in shard).encode()
        path = folder / f"{number:03}.jsonl{'.gz' if compress else ''}"
        path.write_bytes(gzip.compress(content) if compress else content)
    return expand([str(folder)])


def texts(sample: Sample) -> list[str]:
    return [sample.text[row].decode() for row in range(len(sample.text))]


def draw(shards: list[Shard], size: int, **options: object) -> Sample:
    workers = options.pop("workers", 1)
    return draw_sample(shards, Reading(), Sampling(**options), size, workers=workers)  # type: ignore[arg-type]


def draws_of(pool: list[Document], seed: int = 0) -> np.ndarray:
    """Each document's own number, from the hashes of text and id."""
    columns = [Column.of([document[field].encode() for document in pool]) for field in (1, 0)]
    return uniform(combine(hash_rows(columns[0]), hash_rows(columns[1])), seed)


# --- Uniform. ---


@pytest.mark.parametrize("size", [1_000, 20_000, 100_000])
def test_a_sample_has_the_documents_of_the_lowest_draws(size: int, tmp_path: Path) -> None:
    pool = documents(1000)
    sample = draw(write_shards(tmp_path, [pool[:400], pool[400:]]), size, seed=3)
    order = np.argsort(draws_of(pool, 3))
    assert texts(sample) == [pool[at][1] for at in order[: len(sample.text)]]
    assert np.array_equal(sample.draw, draws_of(pool, 3)[order[: len(sample.text)]])


@pytest.mark.parametrize("size", [1_000, 20_000, 100_000])
def test_a_sample_is_as_large_as_asked(size: int, tmp_path: Path) -> None:
    pool = documents(1000)
    sample = draw(write_shards(tmp_path, [pool]), size)
    assert size - 500 < sample.text.offsets[-1] <= size  # 500: the longest document


def test_a_size_beyond_the_pool_takes_all(tmp_path: Path) -> None:
    pool = documents(50)
    assert sorted(texts(draw(write_shards(tmp_path, [pool]), 1 << 30))) == sorted(text for _, text in pool)


sizes = st.sampled_from([1, 2, 6, 6, 6, 9, 15, 40])


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(sizes, min_size=1, max_size=12),
    size=st.sampled_from([1, 5, 10, 20, 60]),
    numbers=st.lists(st.integers(0, 3), min_size=12, max_size=12),
    random=st.randoms(use_true_random=False),
)
def test_sharding_and_order_do_not_matter(
    lengths: list[int], size: int, numbers: list[int], random: object, tmp_path: Path
) -> None:
    pool = [(str(at), "x" * length) for at, length in enumerate(lengths)]
    whole = draw(write_shards(tmp_path / "pool", [pool]), size)
    assert whole.text.offsets[-1] <= size or len(whole.text) == 1
    shuffled = list(zip(pool, numbers, strict=False))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    shards = [[document for document, of in shuffled if of == number] for number in range(4)]
    parts = draw(write_shards(tmp_path / "pool", shards), size)
    assert np.array_equal(parts.draw, whole.draw)
    assert texts(parts) == texts(whole)


def test_compression_and_workers_do_not_matter(tmp_path: Path) -> None:
    pool = documents(600)
    expected = draw(write_shards(tmp_path / "one", [pool]), 20_000)
    shards = write_shards(tmp_path / "many", [pool[at::5] for at in range(5)], compress=True)
    sample = draw(shards, 20_000, workers=2)
    assert texts(sample) == texts(expected)
    assert np.array_equal(sample.draw, expected.draw)


def test_another_seed_draws_others(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, [documents(500)])
    first, second, again = (set(texts(draw(shards, 20_000, seed=seed))) for seed in (1, 2, 1))
    assert first == again and len(first & second) < 0.7 * len(first)


def test_a_document_larger_than_the_sample_is_taken_all_the_same(tmp_path: Path) -> None:
    pool = [("a", "x" * 500), ("b", "y" * 500)]
    assert len(draw(write_shards(tmp_path, [pool]), 100).text) == 1


def test_copies_of_one_document_are_not_all_taken(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, [[("a", "x" * 50)] * 100, [("a", "x" * 50)] * 100])
    assert draw(shards, 500).text.offsets[-1] <= 500


def test_documents_without_text_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n{"text": "x"}\n{}\n')
    reading = Reading(on_bad_line="skip")
    sample = draw_sample(expand([str(tmp_path / "a.jsonl")]), reading, Sampling(), 1000)
    assert texts(sample) == ["x"]


@pytest.mark.parametrize("mode", ["uniform", "shards", "head"])
def test_a_pool_without_text_is_refused(mode: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(UserError, match="the pool holds no document with text to fit on; check the files"):
        draw(expand([str(tmp_path / "a.jsonl")]), 1000, sample=mode)


def test_progress_adds_up_to_the_bytes_of_the_pool(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, [documents(100), documents(200)])
    seen: list[Done] = []
    size = sum(shard.size for shard in shards)
    with showing(lambda stage, done, total: seen.append(done) if (stage, total) == ("drawing", size) else None):
        draw_sample(shards, Reading(), Sampling(), 1000, stage="drawing")
    amounts = [done.bytes for done in seen]
    assert amounts == sorted(amounts)
    assert seen[-1] == Done(bytes=size, documents=300)


# --- Other modes. ---


def test_head_takes_a_first_document_that_is_too_long_as_well(tmp_path: Path) -> None:
    pool = [[(f"{number}", "word " * 500)] for number in range(4)]
    assert len(draw(write_shards(tmp_path, pool), 100, sample="head").text) == 4


def test_head_takes_the_first_documents_of_each_shard(tmp_path: Path) -> None:
    pool = [documents(100, seed) for seed in range(3)]
    sample = draw(write_shards(tmp_path, pool), 3_000, sample="head")
    expected = []
    for shard in pool:
        fits = int(np.searchsorted(np.cumsum([len(text) for _, text in shard]), 1_000, "right"))
        expected += [text for _, text in shard[:fits]]
    assert sorted(texts(sample)) == sorted(expected)


def test_shards_samples_within_some_of_them(tmp_path: Path) -> None:
    pool = [documents(100, seed) for seed in range(20)]
    shards = write_shards(tmp_path, pool)
    sample = draw(shards, shards[0].size // 4, sample="shards")
    of = {text: number for number, shard in enumerate(pool) for _, text in shard}
    assert 1 <= len({of[text] for text in texts(sample)}) <= 3
    assert 0 < sample.text.offsets[-1] <= shards[0].size // 4
    reversed_order = draw(shards[::-1], shards[0].size // 4, sample="shards")
    assert texts(reversed_order) == texts(sample)


# --- Batches. ---


def test_batches_are_the_sample_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvsel.pool.sample._BATCH", 300)
    sample = draw(write_shards(tmp_path, [documents(100)]), 1 << 20)
    batches = list(sample.batches())
    assert [batch.text[row].decode() for batch in batches for row in range(len(batch))] == texts(sample)
    assert len(batches) > 10
    assert all(batch.text.offsets[-1] <= 300 or len(batch) == 1 for batch in batches)


def test_further_fields_come_along(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "one", "meta": {"label": "1"}}\n{"text": "two", "meta": {"label": "2"}}\n'
    )
    shards = expand([str(tmp_path / "a.jsonl")])
    sample = draw_sample(shards, Reading(), Sampling(), 1000, ("meta.label",))
    (batch,) = sample.batches()
    pairs = {(batch.text[row], batch.columns["meta.label"][row]) for row in range(2)}
    assert pairs == {(b"one", b"1"), (b"two", b"2")}
