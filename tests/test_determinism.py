"""The same documents give the same subset, whatever the sharding, order, format, compression and workers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import corpus
from commands import ok
from dvsel.runs.fitted_files import load

# Every tenth document a second time, half of the copies under their own id, half under another one.
DOCUMENTS = corpus.pool()[::2]
COPIES = [
    document | ({"id": f"copy/{number}"} if number % 2 else {}) for number, document in enumerate(DOCUMENTS[::10])
]
POOL = [*DOCUMENTS, *COPIES]
REVERSED = POOL[::-1]


def shards(suffix: str, documents: list[corpus.Document], parts: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        size = -(-len(documents) // parts)
        for part in range(parts):
            corpus.write(folder / f"{part}{suffix}", documents[part * size : (part + 1) * size])

    return write


def two_frames(folder: Path) -> None:
    content = corpus.lines(POOL)
    frames = zstandard.compress(content[:77_777]) + zstandard.compress(content[77_777:])
    (folder / "a.jsonl.zst").write_bytes(frames)


def mixed(folder: Path) -> None:
    corpus.write(folder / "z.jsonl", POOL[:50])
    corpus.write(folder / "deep" / "er" / "y.jsonl.gz", POOL[50:120])
    corpus.write(folder / "x.parquet", POOL[120:300])
    corpus.write(folder / "w.jsonl.zst", POOL[300:])


VARIANTS: dict[str, Callable[[Path], None]] = {
    "one plain file": shards(".jsonl", POOL, 1),
    "other order": shards(".jsonl", REVERSED, 1),
    "seven plain shards": shards(".jsonl", REVERSED, 7),
    "gzip": shards(".jsonl.gz", POOL, 2),
    "zstd": shards(".jsonl.zst", REVERSED, 3),
    "two zstd frames": two_frames,
    "Parquet": shards(".parquet", POOL, 2),
    "mixed": mixed,
}
RULES: dict[str, tuple[str, ...]] = {
    "topk": ("--method", "topk", "--budget", "30%"),
    "resample": ("--method", "resample", "--temperature", "0.05", "--seed", "3", "--budget", "40k tokens"),
    "random": ("--method", "random", "--budget", "80 docs"),
    "threshold": ("--quantile", "0.7"),
    "the scorer's own": ("--budget", "100KB"),
}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Score files of each variant, each fitted on its own pool, with quota.yaml beside."""
    target = corpus.write(tmp_path_factory.mktemp("target") / "target.jsonl", corpus.target())
    found = {}
    for name, write in VARIANTS.items():
        folder = tmp_path_factory.mktemp("variant")
        (folder / "pool").mkdir()
        write(folder / "pool")
        command = ("score", "dsir", folder / "pool", "--target", target, "--normalise", "length", "--min-words", 20)
        ok(*command, "--sample-size", "200KB", "-w", 1, "-o", folder / "scores")
        found[name] = folder
    return found


def ids(folder: Path, *rule: object) -> list[str]:
    """The ids that a rule selects, sorted; a document that is twice in the pool may be there twice."""
    out = folder / "out"
    ok("select", folder / "scores", *rule, "-w", 1, "--overwrite", "-o", out)
    found: list[str] = []
    for path in corpus.shards_of(out):
        if path.suffix == ".parquet":
            found += pq.read_table(path)["id"].to_pylist()
        else:
            found += [json.loads(line)["id"] for line in corpus.read_lines(path)]
    return sorted(found)


def test_the_fit_is_the_same(scored: dict[str, Path]) -> None:
    assert len({load(str(folder / "scores" / "dsir.fitted"))[1] for folder in scored.values()}) == 1


@pytest.mark.parametrize("dedup", [False, True], ids=["all", "dedup"])
@pytest.mark.parametrize("quota", [False, True], ids=["one budget", "quota"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_the_subset_is_the_same(
    rule: tuple[str, ...], quota: bool, dedup: bool, scored: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "quota.yaml").write_text('code: 25%\n"*": 50%\n')
    more = (("--quota", tmp_path / "quota.yaml") if quota else ()) + (("--dedup",) if dedup else ())
    if quota and rule[0] == "--quantile":
        pytest.skip("a quantile bounds by itself")
    found = {name: ids(folder, *rule, *more) for name, folder in scored.items()}
    first = next(iter(found.values()))
    assert 0 < len(first) < len(POOL)
    assert {name: kept for name, kept in found.items() if kept != first} == {}
    if dedup:
        texts = [document["text"] for document in POOL if document["id"] in set(first)]
        assert len(first) == len(set(texts))


def test_another_seed_gives_another_subset(scored: dict[str, Path]) -> None:
    folder = scored["one plain file"]
    one, other = (ids(folder, *RULES["random"], "--seed", seed) for seed in (1, 2))
    assert one != other
    assert ids(folder, *RULES["topk"], "--seed", 1) == ids(folder, *RULES["topk"], "--seed", 2)


def test_two_workers_write_the_same_files(scored: dict[str, Path], tmp_path: Path) -> None:
    target = corpus.write(tmp_path / "target.jsonl", corpus.target())
    trees = []
    for workers in (1, 2):
        out = tmp_path / "out"
        command = ("select", scored["seven plain shards"] / "pool", "--with", "dsir", "--target", target)
        ok(*command, "--budget", "30%", "--overwrite", "-w", workers, "-o", out)
        trees.append(corpus.tree(out))
    assert trees[0] == trees[1]


def test_byte_ranges_of_a_plain_file_give_the_same_scores(
    scored: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = scored["one plain file"]
    whole = pq.read_table(folder / "scores" / "0.jsonl.dvsel.parquet")
    for size in (1_000, 33_333):
        monkeypatch.setattr("dvsel.shards.digest.RANGE", size)
        out = tmp_path / str(size)
        fitted = folder / "scores" / "dsir.fitted"
        ok("score", "dsir", folder / "pool", "--fitted", fitted, "-w", 1, "-o", out)
        assert pq.read_table(out / "0.jsonl.dvsel.parquet").equals(whole)


def test_the_names_of_shards_do_not_matter(scored: dict[str, Path], tmp_path: Path) -> None:
    folder = scored["one plain file"]
    corpus.write(tmp_path / "quite another name.ndjson", corpus.lines(POOL))
    ok("score", "dsir", tmp_path / "quite another name.ndjson", "--fitted", folder / "scores" / "dsir.fitted", "-w", 1,
       "-o", tmp_path / "scores")  # fmt: skip
    assert ids(tmp_path, *RULES["resample"]) == ids(folder, *RULES["resample"])


# --- Documents without an id. ---

TEXTS = [document["text"] for document in corpus.pool()[:60:15]]
NAMELESS = [{"text": TEXTS[number % 4], "seen": number} for number in range(40)]
NAMELESS_RULES = {name: RULES[name] for name in ("topk", "resample", "random")}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted scorer."""
    folder = tmp_path_factory.mktemp("fit")
    pool, target = corpus.write(folder / "p.jsonl", corpus.pool()), corpus.write(folder / "t.jsonl", corpus.target())
    ok("fit", "dsir", "--pool", pool, "--target", target, "--min-words", 1, "-o", folder / "f", "--quiet")
    return folder / "f"


def kept_of(folder: Path, fitted: Path, parts: list[list[corpus.Document]], suffix: str) -> dict[str, list[str]]:
    """The kept documents by rule, of a pool of these shards."""
    for number, part in enumerate(parts):
        corpus.write(folder / "pool" / f"{number}{suffix}", part)
    ok("score", "dsir", folder / "pool", "--fitted", fitted, "-w", 1, "-o", folder / "scores", "--quiet")
    kept = {}
    for number, (words, more) in enumerate(itertools.product(NAMELESS_RULES.values(), ([], ["--dedup"]))):
        out = folder / f"out{number}"
        ok("select", folder / "scores", *words[:2], "--budget", "37% docs", "-w", 1, *more, "-o", out, "--quiet")
        kept[" ".join([*words[:2], *more])] = sorted(row for path in corpus.shards_of(out) for row in rows_of(path))
    return kept


def rows_of(path: Path) -> list[str]:
    """The rows of a shard, as text."""
    if path.suffix == ".parquet":
        return list(map(str, pq.read_table(path).to_pylist()))
    return path.read_text().splitlines()


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(NAMELESS), cuts=st.sets(st.integers(1, 39), max_size=3))
def test_which_of_several_documents_of_a_text_without_id_are_kept_is_not_a_matter_of_order(
    fitted: Path,
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    order: list[corpus.Document],
    cuts: set[int],
) -> None:
    folder = tmp_path_factory.mktemp("nameless")
    parts = [order[begin:end] for begin, end in itertools.pairwise([0, *sorted(cuts), 40])]
    found = kept_of(folder / "a", fitted, parts, suffix)
    assert found == kept_of(folder / "b", fitted, [NAMELESS], suffix)
    assert all(found.values())
