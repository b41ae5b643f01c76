"""The plan against a plain ranking in Python."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dvsel.budget import Budget
from dvsel.budgets.quota import Quota
from dvsel.documents.columns import Status
from dvsel.documents.hashing import mix, uniform
from dvsel.documents.tokens import BUILT_IN
from dvsel.errors import UserError
from dvsel.options import among
from dvsel.runs.requests import Reading
from dvsel.score_files import header as header_module
from dvsel.score_files.header import Header, ReadingRecord, ShardIdentity
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import Rows
from dvsel.score_files.writer import ScoreFileWriter
from dvsel.selection.dedup import TextChunk, duplicates
from dvsel.selection.plan import Plan, mask_file
from dvsel.selection.scored_pool import Pool
from dvsel.selectors import Selector
from dvsel.selectors.random import Random
from dvsel.selectors.resample import Resample
from dvsel.selectors.threshold import Threshold
from dvsel.selectors.topk import TopK

NAN = math.nan
SETTINGS = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class Doc(NamedTuple):
    """A row of a score file. key: the document's own number, which differs between documents."""

    key: int
    scores: tuple[float, ...]
    text: int = 0
    tokens: int = 1
    size: int = 1
    domain: str = ""

    @property
    def status(self) -> Status:
        return Status.SCORED if any(math.isfinite(score) for score in self.scores) else Status.UNSCORED


def shard_of(url: str, name: str) -> ShardIdentity:
    return ShardIdentity(url, name, "jsonl", "", 1, "1", "")


def header(name: str, shares: Sequence[float] = (1.0,), **other: object) -> Header:
    plain = Header(
        version="1",
        shard=shard_of(f"/pool/{name}", name),
        scorer="dsir",
        fingerprint="f" * 32,
        groups=("",) if len(shares) == 1 else tuple("abc"[: len(shares)]),
        shares=tuple(shares),
        selector="topk",
        unscored="too short",
        reading=among(ReadingRecord, Reading()),
        tokens=BUILT_IN,
    )
    return dataclasses.replace(plain, **other)  # type: ignore[arg-type]


def rows_of(docs: Sequence[Doc], groups: int = 1) -> Rows:
    domains = sorted({doc.domain for doc in docs})
    return Rows(
        len(docs),
        np.array([doc.scores for doc in docs], np.float32).reshape(len(docs), groups),
        np.array([doc.key for doc in docs], np.uint64),
        np.array([doc.text for doc in docs], np.uint64),
        np.array([doc.tokens for doc in docs], np.uint32),
        np.array([doc.size for doc in docs], np.uint32),
        np.array([doc.status for doc in docs], np.uint8),
        np.array([domains.index(doc.domain) for doc in docs], np.int32),
        domains,
    )


def score_file(path: Path, docs: Sequence[Doc], shares: Sequence[float] = (1.0,), **other: object) -> ScoreFile:
    with ScoreFileWriter(str(path), header(path.name, shares, **other)) as writer:
        writer.append(rows_of(docs, len(shares)), {})
        writer.finish("digest")
    return ScoreFile(str(path))


def pool_of(folder: Path, shards: Sequence[Sequence[Doc]], shares: Sequence[float] = (1.0,)) -> Pool:
    files = [score_file(folder / f"{number}.jsonl", docs, shares) for number, docs in enumerate(shards)]
    return Pool.of(files[::-1])


def made(
    pool: Pool,
    folder: Path,
    selector: Selector,
    budget: Budget | None,
    seed: int = 0,
    quota: Quota | None = None,
    dedup: bool = False,
    threads: int = 1,
) -> Plan:
    for old in folder.glob("*.bits"):
        old.unlink()
    with ExitStack() as stack:
        drops = None
        if dedup:
            chunks = (
                TextChunk(rows.text_hash, mix(rows.key, seed), rows.status == Status.SCORED)
                for number in range(len(pool.files))
                for rows, _ in pool.rows(number)
            )
            drops = stack.enter_context(duplicates(chunks, pool.first[-1], folder))
        return Plan.make(pool, selector, seed, folder, budget, quota, drops, threads)


def kept_keys(plan: Plan) -> list[int]:
    """The keys of the kept rows, by the masks that the workers read."""
    keys: list[int] = []
    for number, count in enumerate(plan.kept):
        if not count:
            assert not mask_file(plan.masks, number).exists()
            continue
        bits = np.fromfile(mask_file(plan.masks, number), np.uint8)
        flags = np.unpackbits(bits, bitorder="little")[: len(plan.pool.files[number])].astype(bool)
        own = np.concatenate([rows.key for rows, _ in plan.pool.rows(number)])
        assert flags.sum() == count
        keys += own[flags].tolist()
    return sorted(keys)


# --- The truth. ---


def ranked(docs: Sequence[Doc], selector: Selector, seed: int, group: int) -> list[Doc]:
    """Those that can be kept, the best first."""
    own = np.array([doc.key for doc in docs], np.uint64)
    score = np.array([doc.scores[group] for doc in docs], np.float32)
    key = selector.key(score, uniform(own, seed + group)).tolist()
    tie = mix(own, seed).tolist()
    order = sorted((at for at in range(len(docs)) if not math.isnan(key[at])), key=lambda at: (-key[at], -tie[at]))
    return [docs[at] for at in order]


def without_copies(docs: Sequence[Doc], seed: int) -> list[Doc]:
    best: dict[int, tuple[int, Doc]] = {}
    ties = mix(np.array([doc.key for doc in docs], np.uint64), seed).tolist()
    for doc, tie in zip(docs, ties, strict=True):
        if doc.status == Status.SCORED:
            best[doc.text] = max(best.get(doc.text, (-1, doc)), (tie, doc))
    return [doc for _, doc in best.values()]


def cost(doc: Doc, unit: str) -> int:
    return {"tokens": doc.tokens, "docs": 1, "bytes": doc.size}[unit]


def expected(
    docs: Sequence[Doc],
    selector: Selector,
    seed: int,
    unit: str,
    budgets: dict[str, int | None],
    shares: Sequence[float] = (1.0,),
    dedup: bool = False,
) -> list[int]:
    """The keys of what is kept. budgets: by domain, "*" for those that are not named."""
    left = without_copies(docs, seed) if dedup else [doc for doc in docs if doc.status == Status.SCORED]
    kept: list[Doc] = []
    for group in range(len(shares)):
        taken: list[Doc] = []
        for domain, amount in budgets.items():
            own = [doc for doc in left if (doc.domain if doc.domain in budgets else "*") == domain]
            room = math.inf
            if amount is not None:
                ends = [0, *(int(amount * Fraction(end)) for end in np.cumsum(shares)[:-1].tolist()), amount]
                room = ends[group + 1] - ends[group]
            for doc in ranked(own, selector, seed, group):
                room -= cost(doc, unit)
                if room < 0:
                    break
                taken.append(doc)
        kept += taken
        left = [doc for doc in left if doc not in taken]
    return sorted(doc.key for doc in kept)


# --- Properties. ---

SELECTORS = [TopK(), Random(), Resample(), Resample(0.05), Threshold(min_score=0.5)]
scores = st.sampled_from([NAN, 0.0, -0.0, 0.5, 1.0]) | st.floats(-3, 3, width=32)
units = st.sampled_from(["tokens", "docs", "bytes"])


def pools(groups: int) -> st.SearchStrategy[list[Doc]]:
    docs = st.builds(
        Doc,
        st.integers(0, 2**64 - 1),
        st.tuples(*[scores] * groups),
        st.integers(0, 5),
        st.integers(0, 20),
        st.integers(0, 20),
        st.sampled_from(["", "news", "code", "wiki"]),
    )
    return st.lists(docs, max_size=40, unique_by=lambda doc: doc.key)


def sharded(docs: Sequence[Doc], numbers: Sequence[int]) -> list[list[Doc]]:
    return [[doc for at, doc in enumerate(docs) if numbers[at % len(numbers)] == shard] for shard in range(3)]


layouts = st.lists(st.integers(0, 2), min_size=1, max_size=10)


@SETTINGS
@given(
    docs=pools(1),
    selector=st.sampled_from(SELECTORS),
    seed=st.integers(-5, 5),
    unit=units,
    amount=st.integers(1, 300),
    layout=layouts,
    dedup=st.booleans(),
    threads=st.integers(1, 2),
)
def test_one_budget(
    docs: list[Doc],
    selector: Selector,
    seed: int,
    unit: str,
    amount: int,
    layout: list[int],
    dedup: bool,
    threads: int,
    tmp_path: Path,
) -> None:
    pool = pool_of(tmp_path, sharded(docs, layout))
    plan = made(pool, tmp_path, selector, Budget(unit, amount), seed, None, dedup, threads)  # type: ignore[arg-type]
    kept = expected(docs, selector, seed, unit, {"*": amount}, dedup=dedup)
    assert kept_keys(plan) == kept
    check_tally(plan, docs, kept, seed, dedup)
    top = expected(docs, TopK(), seed, unit, {"*": amount}, dedup=dedup)
    assert plan.tally.overlap == (len(set(top) & set(kept)) if isinstance(selector, Resample) else 0)


def check_tally(plan: Plan, docs: list[Doc], kept: list[int], seed: int, dedup: bool) -> None:
    scored = [doc for doc in docs if doc.status == Status.SCORED]
    found = {name: row.tolist() for name, row in plan.tally.domains.items() if row.any()}
    truth = {}
    for name in {doc.domain for doc in docs}:
        own = [doc for doc in scored if doc.domain == name]
        chosen = [doc for doc in own if doc.key in kept]
        truth[name] = [
            len(own), sum(doc.tokens for doc in own), len(chosen),
            sum(doc.tokens for doc in chosen), sum(doc.size for doc in chosen),
            sum(doc.domain == name and doc.status in (Status.EMPTY_TEXT, Status.UNSCORED) for doc in docs),
        ]  # fmt: skip
    assert found == {name: row for name, row in truth.items() if any(row)}
    assert plan.tally.duplicates == (len(scored) - len(without_copies(docs, seed)) if dedup else 0)
    assert plan.tally.histogram[0].sum() == sum(math.isfinite(doc.scores[0]) for doc in scored)
    assert sum(plan.kept) == len(kept)


@SETTINGS
@given(
    docs=pools(1),
    selector=st.sampled_from(SELECTORS),
    unit=units,
    amount=st.integers(1, 200),
    layout=layouts,
    dedup=st.booleans(),
)
def test_a_budget_for_each_domain(
    docs: list[Doc], selector: Selector, unit: str, amount: int, layout: list[int], dedup: bool, tmp_path: Path
) -> None:
    path = tmp_path / "quota.yaml"
    path.write_text('news: 30%\ncode: 0.2\n"*": 50%\n')
    pool = pool_of(tmp_path, sharded(docs, layout))
    quota = Quota.load(path)
    plan = made(pool, tmp_path, selector, Budget(unit, amount), 3, quota, dedup)  # type: ignore[arg-type]
    budgets: dict[str, int | None] = {"news": amount * 3 // 10, "code": amount // 5, "*": amount // 2}
    assert kept_keys(plan) == expected(docs, selector, 3, unit, budgets, dedup=dedup)


@SETTINGS
@given(
    docs=pools(2),
    selector=st.sampled_from(SELECTORS),
    seed=st.integers(0, 3),
    amount=st.integers(1, 200),
    share=st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 1.0]),
    layout=layouts,
    dedup=st.booleans(),
)
def test_several_scores_share_the_budget(
    docs: list[Doc],
    selector: Selector,
    seed: int,
    amount: int,
    share: float,
    layout: list[int],
    dedup: bool,
    tmp_path: Path,
) -> None:
    shares = (share, 1 - share)
    pool = pool_of(tmp_path, sharded(docs, layout), shares)
    plan = made(pool, tmp_path, selector, Budget("tokens", amount), seed, None, dedup)
    assert kept_keys(plan) == expected(docs, selector, seed, "tokens", {"*": amount}, shares, dedup)


@SETTINGS
@given(
    docs=pools(2),
    selector=st.sampled_from(SELECTORS),
    layout=layouts,
    random=st.randoms(use_true_random=False),
)
def test_sharding_and_order_do_not_matter(
    docs: list[Doc], selector: Selector, layout: list[int], random: object, tmp_path: Path
) -> None:
    (tmp_path / "quota.yaml").write_text('news: 40%\n"*": 60%\n')
    quota = Quota.load(tmp_path / "quota.yaml")
    budget = Budget("tokens", share=Fraction(1, 2))
    whole = made(pool_of(tmp_path, [docs], (0.5, 0.5)), tmp_path, selector, budget, 1, quota, True)
    keys = kept_keys(whole)
    shuffled = list(docs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    pool = pool_of(tmp_path, sharded(shuffled, layout), (0.5, 0.5))
    assert kept_keys(made(pool, tmp_path, selector, budget, 1, quota, True)) == keys


def many(count: int, seed: int = 0) -> list[Doc]:
    random = np.random.default_rng(seed)
    score = random.normal(size=count).astype(np.float32).tolist()
    return [
        Doc(int(random.integers(0, 2**63)), (score[at],), at // 2, int(random.integers(1, 50)), 10, "ab"[at % 2])
        for at in range(count)
    ]


def test_row_groups_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = many(1000)
    kept = expected(docs, Resample(), 5, "tokens", {"*": 5000}, dedup=True)
    monkeypatch.setattr(header_module, "ROWS_A_GROUP", 64)
    pool = pool_of(tmp_path, [docs[:700], docs[700:]])
    plan = made(pool, tmp_path, Resample(), Budget("tokens", 5000), 5, dedup=True, threads=2)
    assert kept_keys(plan) == kept


# --- Budgets. ---


def test_a_share_is_of_the_documents_that_have_a_score(tmp_path: Path) -> None:
    docs = [Doc(at, (float(at),), at) for at in range(10)] + [Doc(100 + at, (NAN,), at) for at in range(10)]
    plan = made(pool_of(tmp_path, [docs]), tmp_path, TopK(), Budget.parse("50% docs"))
    assert plan.asked == 5 and kept_keys(plan) == [5, 6, 7, 8, 9]


def test_a_quantile_sets_the_budget(tmp_path: Path) -> None:
    docs = [Doc(at, (float(at),)) for at in range(10)]
    plan = made(pool_of(tmp_path, [docs]), tmp_path, Threshold(quantile=0.7), None)
    assert kept_keys(plan) == [7, 8, 9] and plan.budget == Budget("docs", share=Fraction(3, 10))


def test_a_bound_alone_keeps_all_that_reach_it(tmp_path: Path) -> None:
    docs = [Doc(at, (float(at),)) for at in range(10)]
    plan = made(pool_of(tmp_path, [docs]), tmp_path, Threshold(min_score=4.0), None)
    assert kept_keys(plan) == [4, 5, 6, 7, 8, 9]
    assert plan.strata == [{"name": "", "asked": None, "given": 6, "docs": 6, "took_all": True, "threshold": None}]


def test_a_budget_beyond_the_pool_takes_all_and_says_so(tmp_path: Path) -> None:
    docs = [Doc(at, (float(at),)) for at in range(10)]
    plan = made(pool_of(tmp_path, [docs]), tmp_path, TopK(), Budget("docs", 11))
    assert plan.took_all and len(kept_keys(plan)) == 10
    assert not made(plan.pool, tmp_path, TopK(), Budget("docs", 9)).took_all


def test_each_stratum_is_reported(tmp_path: Path) -> None:
    (tmp_path / "quota.yaml").write_text("a: 100 tokens\nb: 1M tokens\n")
    docs = many(50)
    plan = made(pool_of(tmp_path, [docs]), tmp_path, TopK(), None, quota=Quota.load(tmp_path / "quota.yaml"))
    kept = [doc for doc in docs if doc.key in kept_keys(plan)]
    best_left_out = max(doc.scores[0] for doc in docs if doc not in kept)
    a, b = plan.strata
    own = [doc for doc in kept if doc.domain == "a"]
    assert a == {
        "name": "a", "asked": 100, "given": sum(doc.tokens for doc in own), "docs": len(own),
        "took_all": False, "threshold": best_left_out,
    }  # fmt: skip
    assert (b["name"], b["took_all"], b["threshold"], b["docs"]) == ("b", True, None, 25)
    assert Counter(doc.domain for doc in kept)["b"] == 25


@pytest.mark.parametrize(
    ("selector", "budget", "says"),
    [
        (TopK(), None, "no budget; say how much to keep with --budget"),
        (Threshold(quantile=0.5), Budget("docs", 5), "this selector sets the budget by itself; drop --budget"),
    ],
)
def test_no_budget_or_two_are_refused(selector: Selector, budget: Budget | None, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        made(pool_of(tmp_path, [many(5)]), tmp_path, selector, budget)


# --- What is said of the weights. ---


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_the_effective_sample_size_is_that_of_the_weights(temperature: float, tmp_path: Path) -> None:
    docs = many(500)
    pool = pool_of(tmp_path, [docs[:100], docs[100:]])
    plan = made(pool, tmp_path, Resample(temperature), Budget("docs", 50))
    weight = np.exp(np.array([doc.scores[0] for doc in docs], float) / temperature)
    assert plan.tally.effective_sample_size() == pytest.approx(weight.sum() ** 2 / (weight**2).sum(), rel=1e-4)


def test_the_effective_sample_size_of_huge_scores_is_finite(tmp_path: Path) -> None:
    docs = [Doc(at, (score,)) for at, score in enumerate((-5e8, 9e3, 9e3, -700.0))]
    plan = made(pool_of(tmp_path, [docs[:2], docs[2:]]), tmp_path, Resample(), Budget("docs", 1))
    assert plan.tally.effective_sample_size() == pytest.approx(2)


def test_the_histogram_counts_kept_and_all(tmp_path: Path) -> None:
    docs = many(1000)
    plan = made(pool_of(tmp_path, [docs]), tmp_path, TopK(), Budget("docs", 100))
    pool, kept = plan.tally.histogram
    assert (pool.sum(), kept.sum()) == (1000, 100)
    outside = [
        sum(doc.scores[0] < plan.tally.low for doc in docs),
        sum(doc.scores[0] > plan.tally.high for doc in docs),
    ]
    assert plan.tally.outliers.tolist() == outside and sum(outside) > 0
    score = np.clip([doc.scores[0] for doc in docs], plan.tally.low, plan.tally.high)
    edges = np.linspace(plan.tally.low, plan.tally.high, len(pool) + 1)
    assert np.abs(np.cumsum(pool) - np.cumsum(np.histogram(score, edges)[0])).max() <= 1
    assert np.flatnonzero(kept)[0] >= np.searchsorted(edges, np.quantile(score, 0.9)) - 2


@pytest.mark.parametrize("docs", [[], [Doc(1, (NAN,))], [Doc(1, (2.0,))], [Doc(at, (2.0,)) for at in range(3)]])
def test_pools_without_a_spread(docs: list[Doc], tmp_path: Path) -> None:
    plan = made(pool_of(tmp_path, [docs, []]), tmp_path, Resample(), Budget("docs", 5))
    assert len(kept_keys(plan)) == sum(doc.status == Status.SCORED for doc in docs)


# --- Files that belong together. ---


def refusal(*files: ScoreFile) -> str:
    with pytest.raises(UserError) as refused:
        Pool.of(files)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_files_of_two_fits_are_refused(tmp_path: Path) -> None:
    one = score_file(tmp_path / "a", many(3))
    other = score_file(tmp_path / "b", many(3), fingerprint="0" * 32)
    assert refusal(one, other) == (
        f"{one.url} and {other.url} hold scores of two different fits (dsir ffffffff, dsir 00000000); "
        "score all shards with one --fitted FILE"
    )


def test_files_that_count_tokens_otherwise_are_refused(tmp_path: Path) -> None:
    one = score_file(tmp_path / "a", many(3))
    other = score_file(tmp_path / "b", many(3), tokens=dataclasses.asdict(BUILT_IN) | {"field": "n"})
    assert "count tokens in different ways" in refusal(one, other)


def test_a_shard_that_was_scored_twice_is_refused(tmp_path: Path) -> None:
    first, one, other = (
        score_file(tmp_path / name, many(3), shard=shard_of(f"/pool/{shard}", name))
        for name, shard in (("a", "x"), ("b", "y"), ("c", "y"))
    )
    assert refusal(first, one, other) == f"{one.url} and {other.url} speak of the same shard; name one of them"


def test_two_shards_of_one_name_are_refused(tmp_path: Path) -> None:
    """They would be written to the same output file."""
    first, one, other = (
        score_file(tmp_path / file, many(3), shard=shard_of(f"/{file}/{name}", name))
        for file, name in (("a", "0.jsonl"), ("b", "x.jsonl"), ("c", "x.jsonl"))
    )
    expected = f"{one.url} and {other.url} speak of shards of the same name, x.jsonl, "
    assert refusal(first, one, other).startswith(expected)


def test_no_files_are_refused() -> None:
    assert refusal() == "no score files; make them with `dvsel score`"


def test_files_are_in_the_order_of_their_shards(tmp_path: Path) -> None:
    pool = Pool.of([score_file(tmp_path / name, many(len(name))) for name in ("ccc", "a", "bb")])
    assert [file.header.shard.name for file in pool.files] == ["a", "bb", "ccc"]
    assert pool.first == [0, 1, 3, 6]
    assert [pool.total(unit) for unit in ("docs", "bytes")] == [6, 60]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a full disk, /dev/full")
def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, [many(50)])
    (tmp_path / "0.bits").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"0\.bits: cannot write temporary files \(No space left on device\); "):
        Plan.make(pool, TopK(), 0, tmp_path, Budget.parse("10 docs"))
