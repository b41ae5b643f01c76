"""The app, put together for the arguments at hand.

Only the command that they name is imported, and of the scorers and selectors only those that they name. All others
are a name and a line in the help, which is instant so.
"""

from __future__ import annotations

from collections.abc import Sequence

import typer

from dvsel import __version__
from dvsel.cli.command_table import COMMANDS
from dvsel.cli.errors import with_exit_codes
from dvsel.cli.flags import ANY_FLAGS, raising
from dvsel.cli.help import Commands
from dvsel.errors import UserError

_EXAMPLES = """Choose training data for language models.

\b
  dvsel demo
  dvsel score dsir pool/*.jsonl.zst --target target.jsonl -o scores/
  dvsel select scores/ --budget 30B -o selected/
"""


def build(argv: Sequence[str]) -> typer.Typer:
    """Return the app that can parse `argv`."""
    app = typer.Typer(
        help=_EXAMPLES,
        cls=Commands,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_globals)
    named = next((word for word in argv if not word.startswith("-")), None)
    for name, entry in COMMANDS.items():
        if name == named:
            rest = list(argv[argv.index(name) + 1 :])
            try:
                entry.module().register(app, rest)
            except UserError as error:
                app.command(name, help=entry.about, context_settings=ANY_FLAGS)(with_exit_codes(raising(error)))
        else:
            app.command(name, help=entry.about)(lambda: None)
    return app


def _globals(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="print the version", is_eager=True),
    debug: bool = typer.Option(False, "--debug", help="show a traceback with an error"),  # noqa: ARG001
) -> None:
    if version:
        print(f"dvsel {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())
