"""The table of commands: all that it names is there, and the commands that can be replayed are those with a recipe."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from dvsel.cli.command_table import COMMANDS, REPLAYED


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_where_the_table_says(name: str) -> None:
    module = COMMANDS[name].module()
    assert list(inspect.signature(module.register).parameters) == ["app", "rest"]
    assert hasattr(module, "replay") == (name in REPLAYED)


@pytest.mark.parametrize("name", REPLAYED)
def test_its_options_are_a_dataclass_of_that_name(name: str) -> None:
    cls = COMMANDS[name].run_class()
    assert isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__name__ == f"{name.capitalize()}Run"
    assert "output" in {field.name for field in dataclasses.fields(cls)}
