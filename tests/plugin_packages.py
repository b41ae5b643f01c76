"""Packages with scorers and selectors of their own, as pip would leave them in a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from commands import environment

# A scorer that takes its time, notes how many documents it was asked about, and tells how far it is.
SLOW = """
import os, time
from dataclasses import dataclass
import numpy as np
from dvsel.options import option
from dvsel.progress import within
from dvsel.scorers import Fitted, Scorer

class FittedSlow(Fitted):
    def score(self, batch):
        for row in range(len(batch)):
            time.sleep(float(os.environ["SECONDS"]))
            within((row + 1) / len(batch))
        with open(os.environ["ASKED"], "a") as file:
            file.write(f"{len(batch)}\\n")
        return (batch.text.sizes + self.scorer.bonus).astype(np.float32)

@dataclass(frozen=True)
class Slow(Scorer):
    "Prefer long documents, slowly."
    fitted = FittedSlow
    uses_all_cores = True
    bonus: float = option(0.0, "added to a score")

    def fit(self, pool, targets):
        return FittedSlow(self, {})
"""

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
