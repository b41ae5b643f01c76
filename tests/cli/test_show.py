"""What a person sees of a run: the summary on stderr, as JSON on stdout, or nothing."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass

import pytest

from dvsel import stages
from dvsel.cli.show import executing, print_report
from dvsel.progress import tell


@dataclass(frozen=True)
class Summary:
    documents: int = 3

    def lines(self) -> list[str]:
        return [f"{self.documents} documents", "of \x1b[31m a shard"]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("quiet", [False, True])
def test_the_summary_goes_where_it_is_asked_for(as_json: bool, quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    print_report(Summary(), {"json": as_json, "quiet": quiet})

    out, err = capsys.readouterr()
    assert (json.loads(out) if as_json else out) == ({"documents": 3} if as_json else "")
    assert err.startswith("" if quiet else "3 documents\nof ") and bool(err) != quiet
    assert "\x1b" not in err


@pytest.mark.parametrize("quiet", [False, True])
def test_progress_is_told_unless_it_is_quiet(quiet: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(stages, "lines", lambda: contextlib.nullcontext(lambda stage, *_: told.append(stage)))
    with executing({"quiet": quiet, "workers": 2, "overwrite": True}) as execution:
        tell("scoring")
        assert told == ([] if quiet else ["scoring"])
        assert (execution.workers, execution.overwrite, execution.dry_run) == (2, True, False)
