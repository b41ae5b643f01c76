"""`dvsel select`: flags of the run, of the selector that --method names, and of the scorer that --with names."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from dvsel.cli.completion import is_asked
from dvsel.cli.config import Defaults
from dvsel.cli.errors import with_exit_codes
from dvsel.cli.flags import ANY_FLAGS, FITTED, Group, Values, add, command, raising
from dvsel.errors import UserError
from dvsel.interface.registry import SCORERS, SELECTORS, registered, scorer_class, selector_class
from dvsel.options import fields_of, option
from dvsel.runs.output_folder import RECIPE
from dvsel.runs.scopes import on_shards

if TYPE_CHECKING:
    from dvsel.cli.run import Recipe

_HELP = """Keep the documents that a budget allows, and write them out as shards.

\b
  dvsel select scores/ --budget 30B -o selected/
  dvsel select scores/ --budget 10% --method resample --temperature 2 --seed 7 -o selected/
  dvsel select pool/*.jsonl.zst --with dsir --target target.jsonl --budget 30B -o selected/
  ... | dvsel select --min-score 0.2 -
"""
_SCORING = (
    *("target", "fitted", "sample", "sample_size", "distil", "distil_documents", "distil_floor"),
    *("tokens_field", "tokenizer", "token_sample", "adaptive", "adaptive_share", "adaptive_clusters"),
)
_THRESHOLD_FLAGS = ("--min-score", "--quantile")


@dataclass(frozen=True)
class _Choice:
    method: str | None = option(None, "selection rule (`dvsel list`); by default the one of the scorer's paper")
    with_: str | None = option(None, "score the pool first, with this scorer", scope=on_shards)


def register(app: typer.Typer, rest: Sequence[str]) -> None:
    """Add `select` to the app, with the options of the selector and the scorer that `rest` names."""
    try:
        add(app, "select", build(rest if not is_asked() else _known(rest)))
    except UserError as error:
        app.command("select", context_settings=ANY_FLAGS)(with_exit_codes(raising(error)))


def build(
    rest: Sequence[str],
    defaults: Mapping[str, Any] | None = None,
    scorer: Mapping[str, Any] | None = None,
    selector: Mapping[str, Any] | None = None,
) -> Any:
    """Build the command. defaults, scorer, selector: other defaults; the latter two name their class as `name`."""
    from dvsel.cli.show import Terminal
    from dvsel.runs.requests import SelectRun, StreamOptions

    defaults, scorer, selector = defaults or {}, dict(scorer or {}), dict(selector or {})
    configured = Defaults.of("select")
    with_ = _value(rest, "--with") or scorer.pop("name", None) or configured.word("with")
    method = _method(rest) or selector.pop("name", None) or configured.word("method")
    scorer_cls = scorer_class(with_) if with_ else None
    if not method:
        method = scorer_cls.selector if scorer_cls else _rule_of_scores([*rest, *defaults.get("pool", ())])
    selector_cls = selector_class(method) if method else None

    def body(pool: list[str], values: dict[str, Values]) -> None:
        pool = pool or list(defaults.get("pool", ()))
        values["Run"].take(values["Scoring"])
        if values["Run"]["fitted"] and scorer_cls:
            values["Scorer"].refuse(scorer_cls, FITTED)
        parts = {
            "selector": values["Selector"].make(selector_cls) if selector_cls else None,
            "scorer": values["Scorer"].make(scorer_cls) if scorer_cls and not values["Run"]["fitted"] else None,
        }
        run = values["Run"].make(SelectRun, pool=tuple(pool), **parts)
        values["Choice"].read_in(_Choice, run)
        stream, terminal = values["Stream"].make(StreamOptions, run), values["Execution"].read_in(Terminal, run)
        if pool == ["-"]:
            from dvsel.commands.stream import select_stream

            if run.output not in ("", "-"):
                raise UserError(
                    f"-o {run.output}: what comes from stdin goes to stdout; drop -o, or name a folder of scores"
                )
            select_stream(run, stream, sys.stdin.buffer, sys.stdout.buffer, terminal["quiet"])
            return
        if not pool:
            raise UserError(
                "nothing to select from; name a folder of scores, or a pool and a scorer (--with NAME), or - for lines "
                "from stdin"
            )
        if not (run.output or terminal["dry_run"]):
            raise UserError("nowhere to write to; name a folder with -o selected/, or - for stdout")
        from dvsel.cli.show import executing, print_report

        in_workers = bool((run.scorer and not run.scorer.uses_all_cores) or run.scoring.fitted)
        with executing(terminal, pool if in_workers else ()) as execution:
            from dvsel.commands.select import select

            report = select(run, execution, values["Run"].given | _differing(defaults))
        print_report(report, terminal)

    groups = [
        Group("Choice", _Choice),
        Group("Run", SelectRun, defaults, skip=_SCORING),
        Group("Scoring", SelectRun, defaults, skip=[name for name in fields_of(SelectRun) if name not in _SCORING]),
        *([Group("Selector", selector_cls, selector, prefix=method or "", chosen=True)] if selector_cls else []),
        *([Group("Scorer", scorer_cls, scorer, prefix=with_ or "", chosen=True)] if scorer_cls else []),
        Group("Stream", StreamOptions, prefix="stream"),
        Group("Execution", Terminal, prefix="run"),
    ]
    argument = "folders of scores, or the pool with --with or --method random; - for stdin"
    chosen = [name for name in (with_, method) if name]
    return command(body, groups, _HELP, argument, defaults=Defaults.of("select", chosen))


def replay(recipe: Recipe) -> Any:
    """Build the command with a recipe's values as defaults."""
    return build(recipe.words, recipe.values, recipe.part("scorer"), recipe.part("selector"))


def _differing(recipe: Mapping[str, Any]) -> set[str]:
    """Return the options for which a recipe states another value than the default."""
    from dvsel.runs.requests import SelectRun

    fields = fields_of(SelectRun)
    return {name for name, value in recipe.items() if name in fields and value != fields[name][0].default}


def _rule_of_scores(words: Sequence[str]) -> str | None:
    """Return the selection rule that the score files among the words ask for, so that its flags are known."""
    from dvsel.storage.places import exists, join

    output = _value(words, "--output", "-o")
    for word in words:
        with contextlib.suppress(UserError):  # the run reports it when it reads them
            if word != output and exists(join(word, RECIPE)):
                from dvsel.score_files.find import row_files
                from dvsel.score_files.reader import ScoreFile

                return ScoreFile(row_files(word)[0]).header.selector
    return None


def _known(rest: Sequence[str]) -> list[str]:
    """Return the words without the name of a method that is only half typed."""
    names = {*registered(SCORERS), *registered(SELECTORS)}
    flags = ("--method", "-m", "--with")
    return [word for flag, word in itertools.pairwise(["", *rest]) if flag not in flags or word in names]


def _method(rest: Sequence[str]) -> str | None:
    if method := _value(rest, "--method", "-m"):
        return method
    flags = {word.partition("=")[0] for word in rest}
    return "threshold" if flags.intersection(_THRESHOLD_FLAGS) else None


def _value(rest: Sequence[str], long: str, short: str = "") -> str | None:
    found = None
    for word, following in itertools.pairwise([*rest, ""]):
        if word == long or (short and word == short):
            found = following or None
        elif word.startswith(long + "="):
            found = word.partition("=")[2]
    return found  # the last, as of any other option
