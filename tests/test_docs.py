"""The documentation says what is there: the reference is fresh, nothing is left out, and its examples run."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import language_models
from commands import command_of
from dvsel.cli.command_table import COMMANDS
from dvsel.commands.demo import build
from dvsel.interface.registry import SCORERS, SELECTORS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
REFERENCE = ROOT / "docs" / "cli-reference.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))

generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
LINES = [
    *([name] for name in COMMANDS if name not in ("score", "fit")),
    *([name, scorer] for name in ("score", "fit") for scorer in generate["own"](SCORERS)),
    *(["select", "--with", scorer] for scorer in generate["own"](SCORERS)),
    *(["select", "--method", selector] for selector in generate["own"](SELECTORS)),
]


def test_the_reference_is_what_the_commands_say() -> None:
    page = REFERENCE.read_text(encoding="utf-8")

    assert page == generate["reference"](), "stale; run: python docs/generate.py"


@pytest.mark.parametrize("group", [SCORERS, SELECTORS])
def test_the_readme_has_a_row_for_each_scorer_and_selector(group: str) -> None:
    readme = README.read_text(encoding="utf-8")

    assert [name for name in generate["own"](group) if f"| `{name}` |" not in readme] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_an_example_and_a_section(name: str) -> None:
    assert re.search(rf"dvsel {name}\b", README.read_text(encoding="utf-8"))
    assert re.search(rf"^## dvsel {name}\b", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_the_reference_explains_every_option_or_links_to_it(words: list[str]) -> None:
    page = sections(REFERENCE.read_text(encoding="utf-8"))
    head = "dvsel-select" if words[0] == "select" else f"dvsel-{words[0]}-name"
    here = slug(f"dvsel {' '.join(words)}")
    flags = {one for option in command_of(words).params for one in option.opts[:1] if one.startswith("--")}
    missing = [one for one in flags if not (explains(page, here, one) or explains(page, head, one))]

    assert here in page
    assert set(missing) <= {"--help-all"}


def explains(page: dict[str, str], name: str, flag: str) -> bool:
    """Whether the option has a row in a section, or in one that the section links to for it."""
    text = page.get(name, "")
    links = re.findall(rf"^- .*`{flag}(?:/[^`]*)?`.*\]\(#(.*)\)$", text, re.MULTILINE)
    return bool(re.search(rf"^\| `{flag}[`/]", text, re.MULTILINE)) or any(explains(page, one, flag) for one in links)


def sections(page: str) -> dict[str, str]:
    """What stands below each heading, by the name that links call it."""
    parts = re.split(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL), flags=re.MULTILINE)
    return {slug(heading): text for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


def slug(heading: str) -> str:
    """The name of a heading in links, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def test_the_reference_explains_what_scorers_share_once() -> None:
    page = REFERENCE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `--(?:on-bad-line|tokenizer|workers|window|packing|rank)`.*$", page, re.MULTILINE)

    assert len(rows) == len(set(rows)) == 6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link, heading in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            target = page.parent / link if link else page
            assert target.exists(), link
            assert not heading or heading in sections(target.read_text(encoding="utf-8")), f"{link}#{heading}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small `pool/`, `target.jsonl` and a model, as the documentation's examples have."""
    folder = tmp_path_factory.mktemp("examples")
    shards, _ = build(folder)
    for shard in shards:
        if shard.name != "documentation.jsonl.zst":
            shard.unlink()  # most of the demo's text
    if importlib.util.find_spec("torch"):
        language_models.build(folder / "models" / "all-MiniLM-L6-v2", "bert", task="MaskedLM")
    return folder


def run(script: str, folder: Path) -> str:
    """What a shell script prints in `folder`, with this environment's dvsel; fails with what it said."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ | {"PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An empty folder after the README's first command, and what that said."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / ".venv").symlink_to(sys.prefix)
    return folder, run(".venv/bin/dvsel demo", folder)


def test_the_readme_shows_what_the_demo_prints(demo: tuple[Path, str]) -> None:
    """But for numbers and bars, and the domains' order, which depend on the Python that runs it."""
    (shown,) = re.findall(r"^```\n(a pool of .*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)

    assert skeleton(shown) == skeleton(demo[1])


def skeleton(page: str) -> list[str]:
    plain = (re.sub(r"\s+", " ", re.sub(r"-?[\d.,]*\d%?|[█░]", "", line)).strip() for line in page.splitlines())
    return sorted(line for line in plain if line and not line.startswith(("by domain:", "dvsel: warning")))


def test_the_readme_pastes(demo: tuple[Path, str]) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5

    run("".join(blocks), demo[0])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_each_recipe_runs(recipe: Path, folder: Path) -> None:
    run(f"dvsel run '{recipe}' -o 'recipe-{recipe.stem}'", folder)
