"""Packages with scorers and selectors of their own, as pip would leave them in a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from commands import environment

_METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"


def install(
    folder: Path, name: str, source: str, scorers: Mapping[str, str], selectors: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a process that finds a package of one module.

    source: the module's, which has the package's name with "_" for "-". scorers, selectors: classes by name.
    """
    module, info = name.replace("-", "_"), folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(source)
    (info / "METADATA").write_text(_METADATA.format(name=name))
    groups = {"dvsel.scorers": scorers, "dvsel.selectors": selectors or {}}
    lines = [
        line
        for group, classes in groups.items()
        for line in (f"[{group}]", *(f"{key} = {module}:{cls}" for key, cls in classes.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    known = environment()
    return known | {"PYTHONPATH": os.pathsep.join([str(folder), known["PYTHONPATH"]])}
