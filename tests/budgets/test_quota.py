from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from dvsel.budget import Budget
from dvsel.budgets.quota import Quota
from dvsel.errors import UserError


def load(tmp_path: Path, text: str) -> Quota:
    path = tmp_path / "quota.yaml"
    path.write_text(text, encoding="utf-8")
    return Quota.load(path)


def test_shares_and_amounts_of_a_main_budget(tmp_path: Path) -> None:
    quota = load(tmp_path, "news: 30%\ncode: 5k tokens\nspam: 0\n'*': 0.2\n")
    assert quota.parts == {
        "news": Fraction(3, 10),
        "code": Budget("tokens", amount=5000),
        "spam": Fraction(0),
        "*": Fraction(1, 5),
    }
    assert quota.unit == "tokens"
    names, amounts = quota.budgets(10_001, "tokens")
    assert names == ["news", "code", "spam", "*"]
    assert amounts.tolist() == [3000, 5000, 0, 2000]  # shares are rounded down


def test_amounts_need_no_main_budget(tmp_path: Path) -> None:
    quota = load(tmp_path, "news: 300 docs\ncode: 1k docs\n")
    assert quota.unit == "docs"
    assert quota.budgets(None, None)[1].tolist() == [300, 1000]


def test_shares_are_exact(tmp_path: Path) -> None:
    quota = load(tmp_path, "".join(f"d{number}: 0.1\n" for number in range(10)))
    assert quota.budgets(10**18, "tokens")[1].tolist() == [10**17] * 10


def test_a_domain_draws_on_its_own_budget_or_on_that_of_the_others(tmp_path: Path) -> None:
    named = load(tmp_path, "news: 30%\ncode: 30%\n")
    assert named.stratum(["code", "", "news", "law", "*"]).tolist() == [1, -1, 0, -1, -1]
    others = load(tmp_path, "'*': 40%\nnews: 30%\n")
    assert others.stratum(["news", "", "law"]).tolist() == [1, 0, 0]


def test_domains_are_read_as_written(tmp_path: Path) -> None:
    quota = load(tmp_path, "no: 10%\n2019: 10%\n1.10: 10%\nnull: 10%\n'': 10%\n")
    assert list(quota.parts) == ["no", "2019", "1.10", "null", ""]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("news: 60%\ncode: 50%\n", "quota.yaml: the shares sum up to 110%; lower them"),
        ("news: 5 docs\ncode: 5B tokens\n", "quota.yaml: amounts are in docs and tokens; use one unit"),
        ("news: 30%\nnews: 40%\n", "quota.yaml, line 2, 'news': named twice"),
        ("news: 20G\n", "quota.yaml, line 1, 'news': '20G' could be bytes or tokens; write 20GB"),
        ("a: 1%\nnews: 30\n", "quota.yaml, line 2, 'news': '30' has no unit"),
        ("news: 130%\n", "'130%' is more than the whole"),
        ("news: 1.5\n", "'1.5' is more than the whole"),
        ("news: 30% docs\n", "'30% docs' names a unit; a share is of the main budget"),
        ("news: -5%\n", "'-5%' is not a budget"),
        ("news:\n", "'' is not a budget"),
        ("news: [1, 2]\n", "quota.yaml, line 1: is not a domain with one value"),
        ("? [a, b]\n: 30%\n", "quota.yaml, line 1: is not a domain with one value"),
        ("- news\n", "quota.yaml: names no domains; write lines like"),
        ("", "quota.yaml: names no domains"),
        ("news: '30%\n", "quota.yaml: is not valid YAML (while scanning"),
    ],
)
def test_what_is_no_quota_is_told_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError) as refusal:
        load(tmp_path, text)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml: cannot be read \(No such file or directory\)"):
        Quota.load(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes("café: 30%".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.yaml: is not UTF-8 text"):
        Quota.load(tmp_path / "latin.yaml")


def test_quotas_that_do_not_go_with_the_main_budget(tmp_path: Path) -> None:
    amounts = load(tmp_path, "news: 5k tokens\n")
    with pytest.raises(UserError, match=r"amounts are in tokens, but --budget is in docs; use one unit"):
        amounts.budgets(10**6, "docs")
    with pytest.raises(UserError, match=r"sum up to 5,000, but --budget is 4,999 tokens; lower them"):
        amounts.budgets(4999, "tokens")
    with pytest.raises(UserError, match=r"a share needs a main budget; give --budget, or amounts alone"):
        load(tmp_path, "news: 30%\n").budgets(None, None)


def test_a_line_says_what_a_file_does(tmp_path: Path) -> None:
    file = load(tmp_path, "news: 30%\ncode: 5k tokens\n'a=b': 0.1\n'*': 20%\n")

    assert Quota.parse("news=30%, code=5k tokens,a=b=0.1,*=20%").parts == file.parts
    assert Quota.parse(str(tmp_path / "quota.yaml")) == file


def test_a_file_that_is_there_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "news=30%").write_text("code: 5%")

    assert list(Quota.parse("news=30%").parts) == ["code"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("news=30%,code", "--quota 'news=30%,code': 'code' is not a domain with its part; write news=30%,*=70%"),
        ("news=30%,", "'' is not a domain with its part"),
        ("news=30%,news=40%", "--quota 'news=30%,news=40%', 'news': named twice; keep one"),
        ("news=60%,code=50%", "--quota 'news=60%,code=50%': the shares sum up to 110%; lower them"),
        ("news=", "'news': '' is not a budget"),
        ("news=20G", "'news': '20G' could be bytes or tokens; write 20GB"),
        ("news=" + "1" * 1000, "is not a budget"),
        ("qouta.yaml", "qouta.yaml: cannot be read (No such file or directory)"),
    ],
)
def test_what_is_no_quota_in_a_line(text: str, says: str) -> None:
    with pytest.raises(UserError) as refusal:
        Quota.parse(text)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)
