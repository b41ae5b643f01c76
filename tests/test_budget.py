from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvsel.budget import Budget, Unit
from dvsel.errors import UserError, shown

UNITS: list[Unit] = ["tokens", "docs", "bytes"]


@pytest.mark.parametrize(
    ("text", "unit", "amount"),
    [
        ("30B", "tokens", 30_000_000_000),
        ("30b", "tokens", 30_000_000_000),
        ("30B tokens", "tokens", 30_000_000_000),
        ("1.5M", "tokens", 1_500_000),
        (".5k tokens", "tokens", 500),
        ("1T", "tokens", 10**12),
        ("1 token", "tokens", 1),
        ("500tokens", "tokens", 500),
        ("500k docs", "docs", 500_000),
        ("1,000 docs", "docs", 1000),
        ("1_000 documents", "docs", 1000),
        ("12,345.678K tokens", "tokens", 12_345_678),
        ("20GB", "bytes", 20 * 10**9),
        ("20 gb", "bytes", 20 * 10**9),
        ("20GiB", "bytes", 20 * 2**30),
        ("1kB", "bytes", 1000),
        ("2PB", "bytes", 2 * 10**15),
        ("500bytes", "bytes", 500),
        ("1.5GB bytes", "bytes", 1_500_000_000),
        ("3B bytes", "bytes", 3 * 10**9),
        ("0.1B", "tokens", 100_000_000),  # a float would give 100000000.00000001
    ],
)
def test_amounts(text: str, unit: Unit, amount: int) -> None:
    assert Budget.parse(text) == Budget(unit, amount=amount)


@pytest.mark.parametrize(
    ("text", "unit", "share"),
    [
        ("10%", "tokens", "0.1"),
        ("10 %", "tokens", "0.1"),
        ("10% docs", "docs", "0.1"),
        ("0.5% bytes", "bytes", "0.005"),
        ("100%", "tokens", "1"),
    ],
)
def test_shares(text: str, unit: Unit, share: str) -> None:
    assert Budget.parse(text) == Budget(unit, share=Fraction(share))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("30", "has no unit; write 30 tokens, 30 docs or 30%"),
        ("1,000", "has no unit; write 1,000 tokens"),
        ("0.1", "has no unit"),
        ("20G", "could be bytes or tokens; write 20GB (of text) or 20B tokens"),
        ("20G tokens", "could be bytes or tokens"),
        ("20GB tokens", "names both bytes and tokens"),
        ("20MB docs", "names both bytes and docs"),
        ("0", "has no unit"),
        ("0B", "keeps nothing"),
        ("0 docs", "keeps nothing"),
        ("0%", "is not a share of the pool"),
        ("110%", "is not a share of the pool; give more than 0% and at most 100%"),
        ("1.5 docs", "is not a whole number of docs"),
        ("1.2345K", "is not a whole number of tokens"),
        ("9,999,999,999B", "is more than any pool holds"),
        ("-5%", "is not a budget; write it like 30B tokens, 10%, 500k docs or 20GB"),
        ("-5B", "is not a budget"),
        ("", "is not a budget"),
        ("all", "is not a budget"),
        ("1,5B", "is not a budget"),
        ("1,0000 docs", "is not a budget"),
        ("30B words", "is not a budget"),
        ("30 30B", "is not a budget"),
        ("10%%", "is not a budget"),
        ("1e9 tokens", "is not a budget"),
        ("inf", "is not a budget"),
        ("٣B", "is not a budget"),
        ("9" * 5000 + "B", "is not a budget"),
    ],
)
def test_refused_with_the_remedy(text: str, says: str) -> None:
    with pytest.raises(UserError) as refusal:
        Budget.parse(text)
    assert str(refusal.value).startswith(f"--budget: {shown(text)} ")
    assert says in str(refusal.value)


def test_a_refusal_names_its_place() -> None:
    with pytest.raises(UserError, match=r"^quota\.yaml, line 2: '20G' could be"):
        Budget.parse("20G", place="quota.yaml, line 2")


@given(st.text(alphabet="0123456789.,_%kmgtbpi KMGTBP-tokensdcy", max_size=12))
def test_any_text_is_a_budget_or_refused(text: str) -> None:
    try:
        budget = Budget.parse(text)
    except UserError as refusal:
        assert "\n" not in str(refusal)
    else:
        assert Budget.parse(str(budget)) == budget


amounts = st.one_of(
    st.integers(1, 2**63 - 1),
    st.builds(lambda digits, zeros: digits * 10**zeros, st.integers(1, 9999), st.integers(0, 14)),
)
shares = st.builds(lambda digits, zeros: Fraction(digits, 10**zeros), st.integers(1, 10**6), st.integers(6, 20))


@given(st.sampled_from(UNITS), amounts)
def test_an_amount_reads_back(unit: Unit, amount: int) -> None:
    budget = Budget(unit, amount=amount)
    assert Budget.parse(str(budget)) == budget
    assert budget.resolve(total=1) == amount


@given(st.sampled_from(UNITS), shares, st.integers(0, 2**62))
def test_a_share_reads_back_and_rounds_down(unit: Unit, share: Fraction, total: int) -> None:
    budget = Budget(unit, share=share)
    assert Budget.parse(str(budget)) == budget
    assert budget.resolve(total) <= share * total < budget.resolve(total) + 1


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("30b", "30B tokens"),
        ("30,000,000,000 tokens", "30B tokens"),
        ("1500 docs", "1.5K docs"),
        ("1234567 tokens", "1,234,567 tokens"),
        ("999 docs", "999 docs"),
        ("20gb", "20GB"),
        ("1KiB", "1,024 bytes"),
        ("10.50%", "10.5% tokens"),
        ("100% docs", "100% docs"),
    ],
)
def test_canonical_form(text: str, canonical: str) -> None:
    assert str(Budget.parse(text)) == canonical


def test_the_resolved_amount_is_echoed() -> None:
    assert Budget.parse("30B").echo(total=10**12) == "30B tokens = 30,000,000,000"
    assert Budget.parse("10%").echo(total=12_345) == "10% tokens = 1,234"


@pytest.mark.parametrize(
    ("amount", "share"),
    [
        (None, None),
        (1, Fraction(1, 2)),
        (0, None),
        (None, Fraction(0)),
        (None, Fraction(3, 2)),
        (None, Fraction(1, 3)),
    ],
)
def test_only_possible_budgets_exist(amount: int | None, share: Fraction | None) -> None:
    with pytest.raises(ValueError, match="a budget"):
        Budget("tokens", amount, share)
