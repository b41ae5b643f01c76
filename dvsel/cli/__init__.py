"""The command line: parse, call, print."""

from __future__ import annotations

from dvsel.cli import interrupts, terminal

COMMANDS = {
    "score": "Give every document of a pool a score.",
    "select": "Keep the documents that a budget allows.",
    "fit": "Fit a scorer once, to score with it many times.",
    "embed": "Make every document of a pool a vector, once for all methods that use some.",
    "losses": "Compute the loss of every document under each model of a ladder.",
    "strength": "Score documents by how well their losses order the models of a ladder.",
    "trace": "Find the documents that lower the loss on single documents most, and by which tokens.",
    "inspect": "Show what scores say, or what a fitted scorer is.",
    "run": "Replay a run from its recipe.",
    "list": "List scorers and selectors, those of other packages too.",
    "demo": "Score and select a small pool made from this Python installation.",
}


def main() -> None:
    """Entry point of the console script."""
    interrupts.install()
    terminal.adapt()
    from dvsel.cli.app import build
    from dvsel.cli.completion import words

    build(words())(prog_name="dvsel")
