"""Recipes: what a run writes is the run when it is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dvsel import __version__
from dvsel.errors import UserError
from dvsel.options import LARGEST
from dvsel.runs.recipe import dump, load, make
from dvsel.runs.requests import Counting, FitRun, Fitting, Reading, Sampling, ScoreRun, Scoring, SelectRun
from dvsel.scorers.dsir import DSIR
from dvsel.selectors.resample import Resample
from dvsel.selectors.threshold import Threshold
from dvsel.selectors.topk import TopK

RUNS = [
    (
        "fit",
        FitRun(scorer=DSIR(), pool=("pool/",), fitting=Fitting(target=("a.jsonl", "b.jsonl")), output="dsir.fitted"),
    ),
    (
        "fit",
        FitRun(scorer=DSIR(smoothing=1e-9, lower=False), sampling=Sampling(sample="head", sample_size="1GB", seed=3)),
    ),
    ("score", ScoreRun(scorer=DSIR(normalise="length"), pool=("x*.jsonl", "s3://b/k/"), output="scores")),
    (
        "score",
        ScoreRun(
            scoring=Scoring(fitted="dsir.fitted"),
            counting=Counting(tokens_field="meta.tokens"),
            reading=Reading(on_bad_line="skip"),
            output="no",
        ),
    ),
    ("select", SelectRun(pool=("scores/",), budget="10%", output="selected", dedup=True)),
    ("select", SelectRun(selector=Threshold(quantile=0.9), quota="quota.yaml", sampling=Sampling(seed=7))),
    ("select", SelectRun(scorer=DSIR(), selector=Resample(temperature=0.1), budget="500k docs")),
    ("select", SelectRun(selector=Threshold(min_score=float("-inf")))),
]


def replayed(command: str, run: Any, folder: Path) -> Any:
    file = folder / "recipe.yaml"
    file.write_text(dump(command, run), encoding="utf-8")
    name, values = load(str(file))
    assert name == command
    return make(type(run), values, str(file))


def refusal(content: str | bytes, folder: Path, cls: type = SelectRun) -> str:
    file = folder / "r.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as refused:
        make(cls, load(str(file))[1], "r.yaml")
    message = str(refused.value)
    assert "\n" not in message
    return message.replace(str(file), "r.yaml")


@pytest.mark.parametrize(("command", "run"), RUNS)
def test_a_recipe_replays_its_run(command: str, run: Any, tmp_path: Path) -> None:
    assert replayed(command, run, tmp_path) == run


def fields_drawn(cls: type) -> st.SearchStrategy[Any]:
    """Runs of which every option may have any value of its type and range."""
    texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.sampled_from("\t\n\x1b"))
    of_type = {
        "str": texts,
        "str | None": st.none() | texts,
        "tuple[str, ...]": st.lists(texts, max_size=3).map(tuple),
        "int": st.integers(0, LARGEST),
        "int | None": st.none() | st.integers(1, LARGEST),
        "float | None": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "bool": st.booleans(),
        "Scorer | None": st.sampled_from([None, DSIR(), DSIR(ngrams=1, target_proportions="0.7,0.3")]),
        "Selector | None": st.sampled_from([None, TopK(), Resample(2.5), Threshold(min_score=0.25)]),
    }
    names = st.lists(texts.filter(lambda text: text.strip() and "," not in text), min_size=1, max_size=3).map(",".join)
    by_name = {
        "text_field": names,
        "target_text_field": st.none() | names,
        "distil_floor": st.none() | st.floats(0, 1),
        "adaptive_share": st.none() | st.floats(0, 1, exclude_min=True),
        "adaptive_clusters": st.none() | st.integers(2, LARGEST),
    }
    return st.builds(
        cls,
        **{
            field.name: fields_drawn(part)
            if (part := field.metadata.get("part"))
            else st.sampled_from(choices)
            if (choices := field.metadata.get("choices"))
            else by_name.get(field.name, of_type[str(field.type)])
            for field in dataclasses.fields(cls)
        },
    )


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(run=fields_drawn(FitRun) | fields_drawn(ScoreRun) | fields_drawn(SelectRun))
def test_any_run_survives_its_recipe(run: Any, tmp_path: Path) -> None:
    assert replayed("select", run, tmp_path) == run


def test_a_recipe_names_version_command_and_parts_and_leaves_out_what_is_not_given() -> None:
    values = yaml.safe_load(dump("select", SelectRun(selector=Threshold(min_score=0.5), pool=("scores/",))))
    assert (values["dvsel"], values["command"]) == (__version__, "select")
    assert values["selector"] == {"name": "threshold", "min_score": 0.5}
    assert values["pool"] == ["scores/"]
    assert not {"scorer", "target", "budget"} & set(values)


def test_the_same_run_gives_the_same_recipe() -> None:
    assert dump(*RUNS[2]) == dump(*RUNS[2])
    assert dump(*RUNS[2]) != dump(*RUNS[3])


def test_a_part_may_be_a_name_alone(tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text("command: select\nscorer: dsir\nselector: {name: topk}\n")
    _, values = load(str(tmp_path / "short.yaml"))
    assert make(SelectRun, values, "short.yaml") == SelectRun(scorer=DSIR(), selector=TopK())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("command: select\nbudgett: 10%\n", "r.yaml: unknown option 'budgett'; did you mean 'budget'?"),
        ("command: select\n5: 10%\n", "r.yaml: unknown option 5; known: "),
        ("command: select\nseed: x\n", "r.yaml: option 'seed' is 'x'; it takes int"),
        ("command: select\npool: scores/\n", "r.yaml: option 'pool' is 'scores/'; it takes a list"),
        ("command: select\nselector: {name: topp}\n", "r.yaml: no selector is named 'topp'; did you mean 'topk'?"),
        ("command: select\nselector: {name: topk, k: 5}\n", "r.yaml: selector: unknown option 'k'"),
        ("command: select\nselector: {k: 5}\n", "r.yaml: selector has no name"),
        ("command: select\nscorer:\n", "r.yaml: scorer has no name"),
        ("command: select\nscorer: 5\n", "r.yaml: scorer has no name"),
        ("command: [a, b\n", "r.yaml: is not valid YAML"),
        (b"command: \xff\n", "r.yaml: is not UTF-8 text; save it as UTF-8"),
        ("", "r.yaml: no recipe of dvsel; its first key is `command: "),
        ("- command\n", "r.yaml: no recipe of dvsel; "),
        ("budget: 10%\n", "r.yaml: no recipe of dvsel; "),
        ("command: 5\n", "r.yaml: no recipe of dvsel; "),
    ],
)
def test_what_is_no_recipe_is_refused(content: str | bytes, says: str, tmp_path: Path) -> None:
    assert refusal(content, tmp_path).startswith(says)


def test_a_part_that_the_command_does_not_take_is_refused(tmp_path: Path) -> None:
    content = "command: fit\nselector: topk\n"
    assert refusal(content, tmp_path, FitRun) == "r.yaml: this command takes no selector"


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.yaml: cannot be read \(No such file"):
        load(str(tmp_path / "gone.yaml"))
