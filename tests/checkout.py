"""dvsel as a process of its own runs it out of this checkout, which may not be installed."""

from __future__ import annotations

import functools
import os
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that imports this checkout and finds its scorers and selectors."""
    folders = [str(ROOT), *entry_points(), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))} | more


@functools.cache
def entry_points() -> list[str]:
    """The folder of what an installation would say of the package; none where it is installed."""
    try:
        distribution("dvsel")
        return []
    except PackageNotFoundError:
        folder = _made()
    info = Path(folder.name) / "dvsel-0.dist-info"
    info.mkdir()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dvsel\nVersion: 0\n")
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in points.items()), ""])
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))
    return [folder.name]


@functools.cache
def _made() -> tempfile.TemporaryDirectory[str]:
    """A folder that is gone at the end of the process, for which it must be held."""
    return tempfile.TemporaryDirectory(prefix="dvsel-checkout-")
