"""Commands whose options are those of one run: what is to be read in, a folder out.

By convention the command `name` is the function `name` of the module `dvsel.name`, and its options are `NameRun` there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dvsel.cli.config import Defaults
from dvsel.cli.flags import Group, Values, command
from dvsel.errors import UserError

Make = Callable[..., Any]


def plain(name: str, help: str, argument: str, nothing: str, nowhere: str, skip: Sequence[str] = ()) -> Make:
    """What makes the command, for other defaults of the run if there are some.

    argument: help of the positional arguments. nothing, nowhere: errors for a run without these, and without a folder.
    skip: options of the execution that it does not have.
    """

    def make(defaults: Mapping[str, Any] | None = None) -> Any:
        from dvsel.cli.show import Terminal

        defaults, options = defaults or {}, f"{name.capitalize()}Run"
        cls = getattr(importlib.import_module(f"dvsel.commands.{name}"), options)

        def body(pool: list[str], values: dict[str, Values]) -> None:
            from dvsel.cli.show import executing, print_report

            run = values["Run"].make(cls, pool=tuple(pool or defaults.get("pool", ())))
            terminal = values["Execution"].read_in(Terminal, run)
            if not run.pool:
                raise UserError(nothing)
            if not (run.output or terminal.get("dry_run")):
                raise UserError(nowhere)
            with executing(terminal) as execution:
                report = getattr(importlib.import_module(f"dvsel.commands.{name}"), name)(run, execution)
            print_report(report, terminal)

        groups = [Group("Run", cls, defaults), Group("Execution", Terminal, skip=skip, prefix="run")]
        return command(body, groups, help, argument, defaults=Defaults.of(name))

    return make
