"""dvsel chooses training data for language models: what its commands do, from Python.

    import dvsel

    dvsel.score("dsir", "pool/", target="target.jsonl", output="scores/")
    dvsel.select("scores/", budget="10%", output="selected/")
    scores = dvsel.read_scores("scores/").to_table().to_pandas()

docs/python.md is the guide. Names are loaded when they are first asked for, so that `import dvsel` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvsel.api import FittedScorer, embed, fit, load_fitted, read_scores, score, select
    from dvsel.commands.embed import EmbedReport
    from dvsel.errors import Notice, UserError
    from dvsel.runs.report import ScoreReport, SelectReport

__version__ = "0.1.0"

__all__ = [
    "EmbedReport",
    "FittedScorer",
    "Notice",
    "ScoreReport",
    "SelectReport",
    "UserError",
    "__version__",
    "embed",
    "fit",
    "load_fitted",
    "read_scores",
    "score",
    "select",
]

_HOMES = {
    "dvsel.api": ("FittedScorer", "embed", "fit", "load_fitted", "read_scores", "score", "select"),
    "dvsel.commands.embed": ("EmbedReport",),
    "dvsel.errors": ("Notice", "UserError"),
    "dvsel.runs.report": ("ScoreReport", "SelectReport"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
