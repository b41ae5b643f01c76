"""What describes the project to others (metadata, workflow, hooks, citation) agrees with what it is."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import dvsel

ROOT = Path(__file__).parents[1]
CI = ROOT / ".ci" / "run"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    metadata: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return metadata


def from_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_workflow_runs_the_same_command_on_each_supported_python(project: dict[str, Any]) -> None:
    job = from_yaml(".github/workflows/ci.yml")["jobs"]["check"]
    supported = [one.rpartition(" ")[2] for one in project["classifiers"] if re.search(r":: 3\.\d+$", one)]

    assert job["strategy"]["matrix"]["python"] == supported
    assert project["requires-python"] == f">={supported[0]}"
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]


def test_ci_sets_up_with_the_python_that_is_named(tmp_path: Path) -> None:
    """The interpreter is one that only writes down how it was called, and fails."""
    said, script = tmp_path / "said", tmp_path / ".ci" / "run"
    for name in ("python3.11", "other"):
        fake = tmp_path / name
        fake.write_text(f'#!/bin/sh\necho {name} "$@" >> {said}\nexit 1\n')
        fake.chmod(0o755)
    script.parent.mkdir()
    script.write_bytes(CI.read_bytes())

    for more in ({}, {"PYTHON": "other"}):
        done = subprocess.run(["bash", script], env={"PATH": f"{tmp_path}:/usr/bin:/bin", **more}, check=False)
        assert done.returncode == 1
    assert said.read_text() == "python3.11 -m venv .venv\nother -m venv .venv\n"


def test_hooks_check_what_ci_checks() -> None:
    checks = re.findall(r"^\.venv/bin/(?!pip|pytest)(.*)$", CI.read_text(encoding="utf-8"), re.MULTILINE)
    (repository,) = from_yaml(".pre-commit-config.yaml")["repos"]

    hooks = [re.sub(r"^\.venv/bin/| --force-exclude", "", hook["entry"]) for hook in repository["hooks"]]
    assert hooks == [re.sub(r" --check| \.$| \. ", "", check).strip() for check in checks]


def test_the_citation_names_the_version_the_licence_and_the_authors(project: dict[str, Any]) -> None:
    citation = from_yaml("CITATION.cff")

    assert citation["version"] == dvsel.__version__
    assert citation["license"] == project["license"]
    assert citation["authors"] == project["authors"]


def test_the_extra_all_has_all_extras_of_users(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    (named,) = re.findall(r"dvsel\[(.*)\]", " ".join(extras["all"]))

    assert set(named.split(",")) == extras.keys() - {"all", "dev"}


@pytest.mark.parametrize("form", ["bug", "proposal"])
def test_forms_for_issues_have_what_github_asks_for(form: str) -> None:
    content = from_yaml(f".github/ISSUE_TEMPLATE/{form}.yml")
    fields = [one for one in content["body"] if one["type"] != "markdown"]

    assert content["name"] and content["description"]
    assert len({one["id"] for one in fields}) == len(fields)
    assert all(one["attributes"]["label"] for one in fields)


def test_no_two_test_files_share_a_name() -> None:
    """pytest imports them by their names alone."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert [name for name in set(names) if names.count(name) > 1] == []
