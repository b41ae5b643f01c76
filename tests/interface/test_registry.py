"""Finding scorers and selectors by name."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from dvsel.errors import UserError
from dvsel.interface import registry
from dvsel.interface.registry import SCORERS, SELECTORS, name_of, registered, scorer_class, selector_class
from dvsel.scorers.dsir import DSIR
from dvsel.selectors.topk import TopK


def install(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    """Make these entry points, (name, value), the only ones of each group."""
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [EntryPoint(name, value, group) for name, value in points]
    )


def refusal_of(name: str) -> str:
    with pytest.raises(UserError) as refusal:
        scorer_class(name)
    return str(refusal.value)


def test_the_built_in_ones_are_registered() -> None:
    assert "dsir" in registered(SCORERS)
    assert {"random", "resample", "threshold", "topk"} <= set(registered(SELECTORS))
    assert scorer_class("dsir") is DSIR
    assert selector_class("topk") is TopK


def test_a_class_and_its_name_belong_together() -> None:
    for name in registered(SELECTORS):
        assert name_of(SELECTORS, selector_class(name)) == name
    for name in registered(SCORERS):
        assert name_of(SCORERS, scorer_class(name)) == name


def test_a_scorer_names_a_selector_that_is_there() -> None:
    for name in registered(SCORERS):
        selector_class(scorer_class(name).selector)


def test_names_are_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("zebra", "z:Z"), ("ant", "a:A"))
    assert list(registered(SCORERS)) == ["ant", "zebra"]


def test_an_unknown_name_suggests_the_nearest() -> None:
    assert refusal_of("dsri").startswith("no scorer is named 'dsri'; did you mean 'dsir'?")
    with pytest.raises(UserError, match="no selector is named 'topp'; did you mean 'topk'"):
        selector_class("topp")


def test_two_packages_cannot_claim_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("mine", "one:Mine"), ("mine", "two:Mine"))
    assert refusal_of("mine") == "two packages provide scorer 'mine' (one:Mine and two:Mine); uninstall one"


def test_a_package_that_is_installed_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("dsir", "dvsel.scorers.dsir:DSIR"), ("dsir", "dvsel.scorers.dsir:DSIR"))
    assert scorer_class("dsir") is DSIR


def test_a_package_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("gone", "no_such_module:Gone"), ("old", "dvsel.scorers:Old"))
    assert "scorer 'gone' (no_such_module:Gone) cannot be loaded: No module" in refusal_of("gone")
    assert "scorer 'old' (dvsel.scorers:Old) cannot be loaded" in refusal_of("old")


def test_what_is_no_scorer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("topk", "dvsel.selectors.topk:TopK"), ("function", "dvsel.options:option"))
    assert refusal_of("topk") == "scorer 'topk' (dvsel.selectors.topk:TopK) is not a Scorer class"
    assert refusal_of("function") == "scorer 'function' (dvsel.options:option) is not a Scorer class"


def test_a_class_that_is_not_registered_has_no_name() -> None:
    with pytest.raises(UserError, match=r"TopK is not registered in the entry points of 'dvsel\.scorers'"):
        name_of(SCORERS, TopK)


def test_listing_names_imports_none_of_them() -> None:
    program = (
        "import sys; from dvsel.interface.registry import *; assert 'dsir' in registered(SCORERS);"
        "assert 'topk' in registered(SELECTORS);"
        "print([name for name in ('numpy', 'numba', 'pyarrow', 'dvsel.scorers.dsir') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
