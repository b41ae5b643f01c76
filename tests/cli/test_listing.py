"""`dvsel list`: all that can be chosen, also where a package is broken."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint

import pytest

from commands import ok
from dvsel.cli import listing
from dvsel.interface.registry import SCORERS, registered


def test_list() -> None:
    page = ok("list").out.decode()
    listing = json.loads(ok("list", "--json").out)
    assert {entry["name"] for entry in listing["scorers"]} >= {"dsir"}
    assert {entry["name"] for entry in listing["selectors"]} >= {"topk", "resample", "random", "threshold"}
    for entry in listing["scorers"] + listing["selectors"]:
        assert entry["name"] in page
        assert entry["summary"] and "cannot be loaded" not in entry["summary"]


def test_a_package_that_cannot_be_loaded_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("broken", "no_such_module:Scorer", SCORERS)
    monkeypatch.setattr(listing, "registered", lambda group: {"broken": broken, **registered(group)})

    scorers = {entry["name"]: entry for entry in json.loads(ok("list", "--json").out)["scorers"]}

    assert scorers["broken"]["summary"] == "cannot be loaded: No module named 'no_such_module'"
    assert scorers["dsir"]["package"] == "dvsel"
