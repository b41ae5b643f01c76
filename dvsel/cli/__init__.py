"""The command line: parse, call, print."""

from __future__ import annotations

from dvsel.cli import interrupts, terminal


def main() -> None:
    """Entry point of the console script."""
    interrupts.install()
    terminal.adapt()
    from dvsel.cli.app import build
    from dvsel.cli.completion import words

    build(words())(prog_name="dvsel")
