"""The commands in the order of the help, and where each is.

Modules and classes are named here and imported when a command is used, so that `dvsel --help` is instant.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A command.

    about: its line in the list of commands. flags: the module that defines it, by `register(app, words)`, where `words`
    are those behind its name. run: `module:class` of its options, of a command that writes recipes; that module has
    `replay(recipe)` too.
    """

    about: str
    flags: str
    run: str = ""

    def module(self) -> Any:
        """Import the module that defines the command."""
        return importlib.import_module(self.flags)

    def run_class(self) -> Any:
        """Import the class of the command's options, a dataclass."""
        module, _, name = self.run.partition(":")
        return getattr(importlib.import_module(module), name)


COMMANDS = {
    "score": Entry("Give every document of a pool a score.", "dvsel.cli.score", "dvsel.runs.requests:ScoreRun"),
    "select": Entry("Keep the documents that a budget allows.", "dvsel.cli.select", "dvsel.runs.requests:SelectRun"),
    "fit": Entry("Fit a scorer once, to score with it many times.", "dvsel.cli.fit", "dvsel.runs.requests:FitRun"),
    "embed": Entry(
        "Make every document of a pool a vector, once for all methods that use some.",
        "dvsel.cli.embed",
        "dvsel.commands.embed:EmbedRun",
    ),
    "losses": Entry(
        "Compute the loss of every document under each model of a ladder.",
        "dvsel.cli.losses",
        "dvsel.commands.losses:LossesRun",
    ),
    "strength": Entry(
        "Score documents by how well their losses order the models of a ladder.",
        "dvsel.cli.strength",
        "dvsel.commands.strength:StrengthRun",
    ),
    "trace": Entry(
        "Find the documents that lower the loss on single documents most, and by which tokens.",
        "dvsel.cli.trace",
        "dvsel.commands.trace:TraceRun",
    ),
    "inspect": Entry("Show what scores say, or what a fitted scorer is.", "dvsel.cli.inspect"),
    "run": Entry("Replay a run from its recipe.", "dvsel.cli.run"),
    "list": Entry("List scorers and selectors, those of other packages too.", "dvsel.cli.listing"),
    "demo": Entry("Score and select a small pool made from this Python installation.", "dvsel.cli.demo"),
}
REPLAYED = tuple(name for name, entry in COMMANDS.items() if entry.run)
"""The commands that write recipes; a configuration file may give them defaults."""
