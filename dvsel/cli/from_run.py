"""Commands whose options are those of one run: what is to be read in, a folder out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dvsel.cli.command_table import COMMANDS
from dvsel.cli.config import Defaults
from dvsel.cli.flags import Group, Values, command
from dvsel.errors import UserError

Build = Callable[..., Any]


def command_from_run(
    name: str,
    carry_out: Callable[..., Any],
    help: str,
    argument: str,
    nothing: str,
    nowhere: str,
    skip: Sequence[str] = (),
) -> Build:
    """Return a function that builds the command, for other defaults of the run if there are some.

    carry_out(run, execution): does what the command is for, and returns its report. argument: help of the positional
    arguments. nothing, nowhere: errors for a run without these, and without a folder. skip: options of the execution
    that it does not have.
    """

    def build(defaults: Mapping[str, Any] | None = None) -> Any:
        from dvsel.cli.show import Terminal

        defaults, cls = defaults or {}, COMMANDS[name].run_class()

        def body(pool: list[str], values: dict[str, Values]) -> None:
            from dvsel.cli.show import executing, print_report

            run = values["Run"].make(cls, pool=tuple(pool or defaults.get("pool", ())))
            terminal = values["Execution"].read_in(Terminal, run)
            if not run.pool:
                raise UserError(nothing)
            if not (run.output or terminal.get("dry_run")):
                raise UserError(nowhere)
            with executing(terminal) as execution:
                report = carry_out(run, execution)
            print_report(report, terminal)

        groups = [Group("Run", cls, defaults), Group("Execution", Terminal, skip=skip, prefix="run")]
        return command(body, groups, help, argument, defaults=Defaults.of(name))

    return build
