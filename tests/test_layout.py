"""The package's layout: imports go down the floors that CONTRIBUTING.md lists, and never in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "dvsel").rglob("*.py"))
}


def imported(name: str) -> Iterator[str]:
    """The modules of dvsel that a module imports, lazily or for types too."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            assert node.level == 0, f"{name} imports relatively"
            parts = {f"{node.module}.{one.name}" for one in node.names}
            yield from parts & MODULES.keys() or {node.module}


def unit(module: str) -> str:
    """The package, or the module beside the packages, that a module belongs to."""
    return module.split(".")[1]


def floors() -> dict[str, int]:
    """The floor of each unit, as contributors read it."""
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    return {name: int(floor) for floor, names in rows for name in re.findall(r"`(\w+)`", names)}


def test_every_part_of_the_package_has_a_floor() -> None:
    assert floors().keys() == {unit(module) for module in MODULES if module != "dvsel"}


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"dvsel"}))
def test_imports_go_down(module: str) -> None:
    of = floors()
    up = [
        other
        for other in imported(module)
        if other != "dvsel" and unit(other) != unit(module) and of[unit(other)] >= of[unit(module)]
    ]
    assert up == []


def test_no_circle_of_modules() -> None:
    """Not even by imports inside functions. A package's `__init__` is above or below its modules, not both."""
    graph = {module: {*imported(module)} - {module, "dvsel"} for module in MODULES if module != "dvsel"}
    TopologicalSorter(graph).prepare()
