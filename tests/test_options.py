"""Options through plain values and back, and what is said of values that do not fit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import inf, nan
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dvsel.commands.embed import EmbedRun
from dvsel.commands.losses import LossesRun
from dvsel.commands.trace import TraceRun
from dvsel.errors import UserError
from dvsel.interface.registry import SCORERS, SELECTORS, registered
from dvsel.options import (
    LARGEST,
    Options,
    among,
    base_type,
    build,
    changed,
    fields_of,
    flat,
    from_mapping,
    help_of,
    nearest,
    option,
    part,
    refuse_unread,
    to_mapping,
    under,
    unless,
)
from dvsel.runs.requests import FitRun, ScoreRun, SelectRun


@dataclass(frozen=True)
class Cake:
    layers: int = option(3, "how many layers")
    sugar: float = option(0.5, "share of sugar")
    icing: str | None = option(None, "what is on top")
    shape: str = option("round", "seen from above", choices=("round", "square"))
    fruits: tuple[str, ...] = option((), "what is in it")
    baked: bool = option(True, "whether it is done")


cakes = st.builds(
    Cake,
    st.integers(),
    st.floats(allow_nan=False),
    st.none() | st.text(),
    st.sampled_from(["round", "square"]),
    st.lists(st.text()).map(tuple),
    st.booleans(),
)


@given(cakes)
def test_options_survive_plain_values(cake: Cake) -> None:
    assert from_mapping(Cake, to_mapping(cake), "here") == cake


@given(cakes)
def test_options_survive_yaml(cake: Cake) -> None:
    assert from_mapping(Cake, yaml.safe_load(yaml.safe_dump(to_mapping(cake))), "here") == cake


def test_defaults_fill_what_is_not_given() -> None:
    assert from_mapping(Cake, {"layers": 5}, "here") == Cake(layers=5)
    assert from_mapping(Cake, {}, "here") == Cake()


def test_whole_numbers_do_for_floats() -> None:
    sugar = from_mapping(Cake, {"sugar": 1}, "here").sugar
    assert sugar == 1.0 and isinstance(sugar, float)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"layer": 3}, "here: unknown option 'layer'; did you mean 'layers'?"),
        ({"zzz": 3}, "here: unknown option 'zzz'; known: layers, sugar, icing, shape, fruits, baked"),
        ({7: 3}, "here: unknown option 7; known: layers"),
        ({"layers": "3"}, "here: option 'layers' is '3'; it takes int"),
        ({"layers": 3.0}, "here: option 'layers' is 3.0; it takes int"),
        ({"layers": True}, "here: option 'layers' is True; it takes int"),
        ({"layers": None}, "here: option 'layers' is None; it takes int"),
        ({"sugar": True}, "here: option 'sugar' is True; it takes float"),
        ({"icing": 4}, "here: option 'icing' is 4; it takes str"),
        ({"fruits": "apple"}, "here: option 'fruits' is 'apple'; it takes a list"),
        ({"fruits": ["apple", 4]}, "here: option 'fruits' is 4; it takes str"),
        ({"baked": "no"}, "here: option 'baked' is 'no'; it takes bool"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[Any, Any], says: str) -> None:
    with pytest.raises(UserError) as refusal:
        from_mapping(Cake, values, "here")
    assert str(refusal.value).startswith(says)


@dataclass(frozen=True)
class Oven(Options):
    trays: int = option(1, "how many", minimum=1, maximum=8)
    degrees: float = option(180.0, "how hot", minimum=-273.15, maximum=inf)
    minutes: tuple[int, ...] = option((), "between turns", minimum=0)
    age: int = option(0, "in seconds")
    price: float | None = option(None, "what it cost")
    door: float = option(0.5, "how far it is open", minimum=0, below=1)
    fan: float = option(1.0, "turns a second", above=0)
    light: float = option(1.0, "share of its light", above=0, maximum=1)
    heat: str = option("", "where it comes from", choices=("top", "bottom"))
    modes: tuple[str, ...] = option((), "what it can do", choices=("bake", "grill"))
    name: str = option("", "what it is called")
    maker_field: str = option("", "where it says who made it")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"trays": 0}, "trays 0: out of range; give 1 to 8"),
        ({"trays": 9}, "trays 9: out of range; give 1 to 8"),
        ({"degrees": -300.0}, "degrees -300.0: out of range; give -273.15 or more"),
        ({"degrees": nan}, "degrees nan: out of range; give a number"),
        ({"minutes": (3, -1)}, "minutes -1: out of range; give 0 or more"),
        ({"age": LARGEST + 1}, f"age {LARGEST + 1}: out of range; give a finite number of ordinary size"),
        (
            {"age": 1 << 20_000},
            "age a number of thousands of digits: out of range; give a finite number of ordinary size",
        ),
        ({"price": inf}, "price inf: out of range; give a finite number of ordinary size"),
        ({"price": nan}, "price nan: out of range; give a number"),
        ({"door": 1.0}, "door 1.0: out of range; give at least 0 and below 1"),
        ({"door": -0.1}, "door -0.1: out of range; give at least 0 and below 1"),
        ({"fan": 0.0}, "fan 0.0: out of range; give a number above 0"),
        ({"fan": inf}, "fan inf: out of range; give a number above 0"),
        ({"light": 0.0}, "light 0.0: out of range; give a number above 0 and at most 1"),
        ({"light": 1.5}, "light 1.5: out of range; give a number above 0 and at most 1"),
        ({"heat": "left"}, "heat 'left': unknown; give one of top, bottom"),
        ({"modes": ("bake", "fry")}, "modes 'fry': unknown; give one of bake, grill"),
    ],
)
def test_what_is_not_as_declared_is_refused_wherever_it_comes_from(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refusal:
        Oven(**values)
    assert str(refusal.value) == says
    with pytest.raises(UserError) as refusal:
        from_mapping(Oven, values, "recipe.yaml")
    assert str(refusal.value) == f"recipe.yaml: {says}"


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_no_file_takes_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^name '.*': has a character that no name can have; take it out$"):
        Oven(name=text)
    assert Oven(name="\udcff").name == "\udcff"  # a byte of a file name that is not UTF-8
    with pytest.raises(UserError, match=r"^maker_field '\\udcff': has a character"):
        Oven(maker_field="\udcff")


def test_the_ends_of_a_range_belong_to_it() -> None:
    assert Oven(1, inf, (0, LARGEST), LARGEST, 0.0) == Oven(1, inf, (0, LARGEST), LARGEST, 0.0)
    Oven(8, -273.15, age=-LARGEST, price=-1e308)


def test_the_default_need_not_be_a_choice() -> None:
    assert from_mapping(Oven, to_mapping(Oven()), "recipe.yaml") == Oven()
    assert Oven(heat="top", modes=("grill", "bake")).heat == "top"


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({}, ""),
        ({"minimum": -inf, "maximum": inf}, ""),
        ({"minimum": 1}, "1 or more"),
        ({"minimum": 0, "maximum": LARGEST}, "0 or more"),
        ({"maximum": 8}, "8 or less"),
        ({"minimum": 0, "maximum": 1}, "0 to 1"),
        ({"above": 0}, "above 0"),
        ({"below": 1}, "below 1"),
        ({"above": 0, "below": 1}, "above 0 and below 1"),
        ({"above": 0, "maximum": 100}, "above 0 and at most 100"),
        ({"minimum": 0, "below": 1}, "at least 0 and below 1"),
    ],
)
def test_a_range_in_words_is_part_of_the_help(bounds: dict[str, Any], words: str) -> None:
    field = option(0.5, "how far", **bounds)
    assert help_of(field) == (f"how far ({words})" if words else "how far")


UNBOUNDED = {"layer", "min_score", "training_seed"}
"""Options that take any number: layers count from both ends, scores are of any size, and so are seeds."""


@pytest.mark.parametrize(
    "cls", [point.load() for group in (SCORERS, SELECTORS) for point in registered(group).values()]
)
def test_every_number_of_a_method_has_a_range(cls: type) -> None:
    """One that is declared again, for another default or help, too."""
    numbers = {name: field for name, (field, hint) in fields_of(cls).items() if is_number(base_type(hint))}
    assert {name for name, field in numbers.items() if not str(field.metadata["range"])} <= UNBOUNDED


def is_number(hint: Any) -> bool:
    return any(one in (int, float) for one in (hint, *get_args(hint)))


def test_near_names_are_suggested() -> None:
    assert nearest("dsri", ["dsir", "length"]) == "did you mean 'dsir'?"
    assert nearest("perplexity", ["dsir", "length"]) == "known: dsir, length"
    assert nearest("dsir", []) == "known: none"


def test_fields_carry_help_and_resolved_types() -> None:
    fields = fields_of(Cake)
    assert list(fields) == ["layers", "sugar", "icing", "shape", "fruits", "baked"]
    assert fields["layers"][0].metadata["help"] == "how many layers"
    assert [base_type(hint) for _, hint in fields.values()] == [int, float, str, str, tuple[str, ...], bool]


@dataclass(frozen=True)
class Tea(Options):
    kind: str = option("green", "which", choices=("green", "black"))
    minutes: int = option(3, "how long", when=under("kind", "black"))
    milk: float = option(0.0, "share")
    sugar: int = option(0, "spoons", when=unless("milk"))
    cup: str = option("", "whose", scope=lambda guests: "" if guests else "nobody comes; drop it")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"minutes": 5}, "--minutes: belongs to --kind black; add that, or drop it"),
        ({"milk": 0.1, "sugar": 2}, "--sugar: is not read beside --milk; drop one of the two"),
    ],
)
def test_an_option_that_those_beside_it_leave_unread_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refusal:
        Tea(**values)
    assert str(refusal.value) == says


def test_an_option_counts_as_given_where_it_is_said_so_or_is_not_at_its_default() -> None:
    assert Tea(kind="black", minutes=5) and Tea(sugar=2)
    refuse_unread(Tea(), run=["a guest"])
    refuse_unread(Tea(), run=[])
    with pytest.raises(UserError, match=r"^--minutes: belongs to --kind black"):
        refuse_unread(Tea(), {"minutes"})
    with pytest.raises(UserError, match=r"^--cup: nobody comes; drop it$"):
        refuse_unread(Tea(cup="mine"), run=[])


@dataclass(frozen=True)
class Biscuit(Options):
    """What goes with it."""

    dunked: bool = option(False, "wet", scope=lambda run: "" if run.kind == "black" else "needs black tea; drop it")


@dataclass(frozen=True)
class Visit(Options):
    """Tea and a biscuit."""

    tea: Tea = part(Tea)
    biscuit: Biscuit = part(Biscuit)
    guests: int = option(1, "who come", minimum=1)


def test_parts_are_written_flat_and_read_back() -> None:
    visit = Visit(tea=Tea(kind="black", minutes=5), biscuit=Biscuit(dunked=True))

    assert list(fields_of(Visit)) == [*fields_of(Tea), "dunked", "guests"]
    assert flat(visit)["minutes"] == 5
    assert build(Visit, flat(visit)) == visit
    assert from_mapping(Visit, {"kind": "black", "guests": 2}, "here") == Visit(tea=Tea(kind="black"), guests=2)
    assert changed(visit) == {"kind", "minutes", "dunked"}
    assert among(Biscuit, visit) == Biscuit(dunked=True)


def test_a_scope_sees_the_options_of_all_parts() -> None:
    refuse_unread(Visit(tea=Tea(kind="black"), biscuit=Biscuit(dunked=True)))
    with pytest.raises(UserError, match=r"^--dunked: needs black tea; drop it$"):
        refuse_unread(Visit(biscuit=Biscuit(dunked=True)))
    with pytest.raises(UserError, match=r"^here: unknown option 'tea'"):
        from_mapping(Visit, {"tea": {}}, "here")


@pytest.mark.parametrize("run", [FitRun, ScoreRun, SelectRun, EmbedRun, LossesRun, TraceRun])
def test_no_two_parts_of_a_run_have_an_option_of_the_same_name(run: type) -> None:
    names = [name for one in parts_of(run) for name in one]
    assert sorted(names) == sorted(set(names))


def parts_of(cls: type) -> list[list[str]]:
    own = [field.name for field in dataclasses.fields(cls) if not field.metadata.get("part")]
    inner = [list(fields_of(field.metadata["part"])) for field in dataclasses.fields(cls) if field.metadata.get("part")]
    return [own, *inner]
