"""Commands whose options are those of one run: what is to be read in, a folder out.

By convention the command `name` is the function `name` of the module `dvsel.name`, and its options are `NameRun` there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dvsel.cli.flags import Group, command, run_of
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
        cls = getattr(importlib.import_module(f"dvsel.{name}"), options)

        def body(pool: list[str], values: dict[str, dict[str, Any]]) -> None:
            from dvsel.cli.show import executing, print_report

            run = run_of(cls, values["Run"], pool or list(defaults.get("pool", ())))
            if not run.pool:
                raise UserError(nothing)
            if not (run.output or values["Execution"].get("dry_run")):
                raise UserError(nowhere)
            with executing(values["Execution"]) as execution:
                report = getattr(importlib.import_module(f"dvsel.{name}"), name)(run, execution)
            print_report(report, values["Execution"])

        groups = [Group("Run", cls, defaults), Group("Execution", Terminal, skip=skip, prefix="run")]
        return command(body, groups, help, argument)

    return make
