"""Help: there for every command and every option, with an example to copy, and instant."""

from __future__ import annotations

import re
import sys

import pytest

from commands import COMMAND, command_of, dvsel, ok, run
from dvsel.cli.command_table import COMMANDS
from dvsel.cli.help import OWN_GROUPS
from dvsel.interface.registry import SCORERS, SELECTORS, registered, scorer_class, selector_class
from dvsel.options import fields_of

HEAVY = {"numpy", "torch", "transformers", "datasets", "numba", "pyarrow", "polars", "sklearn", "zstandard", "fsspec"}
PAGES = [
    [],
    *([name] for name in COMMANDS),
    *([command, name] for command in ("score", "fit") for name in registered(SCORERS)),
    *(["select", "--method", name] for name in registered(SELECTORS)),
    *(["select", "--with", name] for name in registered(SCORERS)),
]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def title(words: list[str]) -> str:
    return " ".join(words) or "dvsel"


def help_of(words: list[str]) -> str:
    """A help page as plain text, boxes and line breaks removed."""
    page = ok(*words, "--help-all" if len(words) > 1 else "--help").out.decode()
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", page).split())


@pytest.mark.parametrize("words", PAGES, ids=title)
def test_every_page_has_an_example_to_copy(words: list[str]) -> None:
    page = help_of(words)
    command = (
        f"dvsel {words[0]} " if words and len(words) != 1 else f"dvsel {title(words).removeprefix('dvsel')}".strip()
    )
    assert page.count(command) >= (1 if words in (["score"], ["fit"]) else 2), page


@pytest.mark.parametrize("words", PAGES, ids=title)
def test_every_option_is_explained(words: list[str]) -> None:
    for parameter in command_of(words).params:
        assert getattr(parameter, "help", ""), f"{title(words)}: {parameter.name} has no help"


@pytest.mark.parametrize("words", PAGES, ids=title)
def test_both_flags_ask_for_help(words: list[str]) -> None:
    assert dvsel(*words, "-h").out == ok(*words, "--help").out


def test_the_page_of_a_command_shows_every_option_of_its_plug_in() -> None:
    for name in registered(SCORERS):
        for page in (help_of(["score", name]), help_of(["fit", name]), help_of(["select", "--with", name])):
            for option in fields_of(scorer_class(name)):
                assert f"--{option.rstrip('_').replace('_', '-')}" in page
    for name in registered(SELECTORS):
        page = help_of(["select", "--method", name])
        for option in fields_of(selector_class(name)):
            assert f"--{option.rstrip('_').replace('_', '-')}" in page


def test_the_short_help_shows_what_matters_most_and_how_to_see_the_rest() -> None:
    for words in PAGES:
        command = command_of(words)
        if getattr(command, "often", None) is not None:
            page = ok(*words, "-h").out.decode()
            options = re.findall(r"^  (?:-\w, )?--[\w-]+", page, re.MULTILINE)
            assert len(options) <= 20 and "--output" in page, (words, options)
            assert page.count("--help-all") == 2


@pytest.mark.parametrize("words", PAGES, ids=title)
def test_no_name_is_cut_or_broken_at_80_columns(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command = command_of(words)
    page = ok(*words, "--help-all" if hasattr(command, "often") else "--help").out.decode()
    shown = set(re.findall(r"(?<![\w-])--?[\w-]+", page))
    hidden: frozenset[str] = getattr(command, "aliases", frozenset())
    for parameter in command.params:
        if parameter.opts[0].startswith("-"):
            assert {*parameter.opts, *parameter.secondary_opts} - hidden <= shown
    for name in getattr(command, "commands", {}):
        assert re.search(rf"^  {name}\b", page, re.MULTILINE)


def test_methods_are_listed_with_their_summaries_by_what_they_need() -> None:
    for command in ("score", "fit"):
        page = help_of([command])
        places = [page.index(f"{group[0].upper()}{group[1:]}: ") for group in OWN_GROUPS]
        assert places == sorted(places)
        for name in registered(SCORERS):
            cls = scorer_class(name)
            assert f"{name} {(cls.__doc__ or '').splitlines()[0]}" in page
            assert cls.group in OWN_GROUPS
        assert page.index(" dsir ") < page.index("Classifier:") < page.index(" fasttext ") < page.index("Embeddings:")


def refused(*words: str) -> str:
    answer = dvsel(*words)
    assert answer.code == 2
    return answer.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("select s --method topk --temperature 3", "--temperature belongs to --method resample; add that, or drop it"),
        ("select s --min-words=3", "--min-words belongs to --with dsir; add that, or drop it"),
        ("score dsir p --measure total", "--measure belongs to `dvsel score perplexity`; drop it"),
        ("fit dsir --teacher x", "--teacher belongs to `dvsel fit distilled`; drop it"),
        ("score dsir p --budget 5%", "--budget belongs to `dvsel select`; drop it"),
        ("score dsir p --bukets 5", "no option --bukets; did you mean '--buckets'?"),
        ("score dsir p --zzzz", "no option --zzzz; `dvsel score dsir --help-all` shows all"),
    ],
)
def test_an_option_that_is_not_there_is_told_whose_it_is(words: str, says: str) -> None:
    assert refused(*words.split()) == f"Error: {says}"


def test_an_option_of_many_methods_names_some() -> None:
    line = refused("score", "dsir", "p", "--model", "x")
    assert "`dvsel score datainf`" in line and re.search(r" and \d+ more; drop it$", line)


@pytest.mark.parametrize(
    ("page", "here", "there"),
    [
        ("score dsir", "--normalise", "--normalize"),
        ("score label-noise", "--neighbours", "--neighbors"),
        ("score influence", "--optimizer-state", "--optimiser-state"),
    ],
)
def test_both_spellings_are_taken_and_one_is_shown(page: str, here: str, there: str) -> None:
    words = page.split()
    (parameter,) = (one for one in command_of(words).params if here in one.opts)
    assert there in parameter.opts
    shown = ok(*words, "--help-all").out.decode()
    assert here in shown and there not in shown


def test_defaults_are_shown() -> None:
    page = help_of(["score", "dsir"])
    assert "default: 10000" in page and "default: text" in page and "default: uniform" in page


def test_the_main_page_names_every_command() -> None:
    page = help_of([])
    for name, entry in COMMANDS.items():
        assert f"{name} {entry.about.split('.')[0]}" in page


def test_scorers_are_named_without_loading_them() -> None:
    assert "dsir" in help_of(["score"])
    assert "dvsel.scorers.dsir" not in imported("score", "--help")


def imported(*words: str) -> set[str]:
    """The modules that a command imports."""
    command = (sys.executable, "-X", "importtime", *COMMAND[1:])
    answer = run(*words, command=command)
    assert answer.code == 0, answer.err
    return {line.rpartition("|")[2].strip() for line in answer.err.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["score", "--help"]], ids=title)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    assert {name.partition(".")[0] for name in imported(*words)} & HEAVY == set()


@pytest.mark.parametrize("words", [["score", "dsir", "--help"], ["select", "--help"]], ids=title)
def test_help_of_a_method_imports_no_framework(words: list[str]) -> None:
    frameworks = HEAVY - {"numpy", "numba", "pyarrow", "zstandard", "fsspec"}
    assert {name.partition(".")[0] for name in imported(*words)} & frameworks == set()
