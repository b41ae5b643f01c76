"""Scopes of options: where in a run each is read.

Each function is a scope, as `dvsel.options.option` takes it: asked of a run, it says "" where the option is read, else
why it is not, and what to do. A run is any of those that commands carry out; what one of them has no option for, it
does not do. Light to import, as `dvsel.runs.requests` is.
"""

from __future__ import annotations

from typing import Any

from dvsel.interface.selector import SetSelector

STREAM = "-"
STDOUT = "-"


def is_stream(run: Any) -> bool:
    """True for a run on lines from stdin."""
    return tuple(run.pool) == (STREAM,)


def on_shards(run: Any) -> str:
    """Read where the pool is shards."""
    return "is for shards, and lines from stdin are none; drop it" if is_stream(run) else ""


def on_a_stream(run: Any) -> str:
    """Read where the pool is lines from stdin."""
    return "" if is_stream(run) else "is for lines from stdin, and shards are named; drop it"


def sees_all(run: Any) -> str:
    """Read where all documents are seen before any is written."""
    if not is_stream(run):
        return ""
    return "a stream can only be cut at a bound (--min-score); drop it, or take score files (dvsel score -o scores/)"


def writes_a_folder(run: Any) -> str:
    """Read where files are written."""
    to_stdout = run.output == STDOUT and "is for an output folder, and documents go to stdout; drop it"
    return on_shards(run) or to_stdout or ""


def prints(run: Any) -> str:
    """Read where stdout is free of documents."""
    taken = is_stream(run) or run.output == STDOUT
    return "goes to stdout, and so do the documents; drop it, or name a folder with -o" if taken else ""


def is_fitted(run: Any) -> str:
    """A scorer that is there; what is on a stream of scores is scored already."""
    return on_shards(run) if hasattr(run, "selector") else ""


def looks_at_vectors(run: Any) -> str:
    """Read by selectors that look at vectors, as far as that is known before score files are read."""
    blind = run.selector is not None and not getattr(run.selector, "looks_at_vectors", False)
    return on_shards(run) or ("this method looks at no vectors; drop it, or choose another --method" if blind else "")


def scores(run: Any) -> str:
    """Read where the run gives scores."""
    return "is for scoring, and this run takes scores as they are; drop it, or add --with" if _selects(run) else ""


def scores_shards(run: Any) -> str:
    """Read where the run writes score files."""
    return on_shards(run) or scores(run)


def takes_scores(run: Any) -> str:
    """Read where the run takes score files."""
    there = "" if _selects(run) else "is for a folder of scores, and this run makes them itself; drop it"
    return on_shards(run) or there


def fits(run: Any) -> str:
    """Read where a scorer is fitted."""
    done = getattr(run, "fitted", None) and "is for a fit, and --fitted names one that is done; drop one of the two"
    return scores(run) or done or ""


def takes_target(run: Any) -> str:
    """Read where a fit takes a target."""
    without = run.scorer is not None and not run.scorer.takes_target
    return fits(run) or ("this method takes none; drop it" if without else "")


def is_distilled(run: Any) -> str:
    """Read where a fitted scorer can be distilled."""
    if is_stream(run):
        return "stdin can be read only once; fit first, and give what that writes with --fitted FILE"
    if getattr(run, "fitted", None):
        return (
            "fits a scorer, and --fitted names one; drop one of the two, or see `dvsel score distilled --teacher FILE`"
        )
    return scores(run)


def distils(run: Any) -> str:
    """Read where a scorer is distilled."""
    return "" if run.distil or _steps(run) == "distil" else "says how to distil; add --distil, or drop it"


def samples_pool(run: Any) -> str:
    """Read where a fit sees a sample of the pool."""
    needs = _steps(run) or getattr(run, "distil", False) or (run.scorer is not None and run.scorer.takes_pool)
    return on_shards(run) or fits(run) or ("" if needs else "is for a fit on the pool, and this is none; drop it")


def samples_documents(run: Any) -> str:
    """Read where documents are drawn, for a fit or to count tokens."""
    return "" if getattr(run, "token_sample", None) else samples_pool(run)


def draws(run: Any) -> str:
    """Read where chance has a say: in samples, a bandit, and a selection, whose ties go by it too."""
    if hasattr(run, "selector") or getattr(run, "adaptive", False):
        return on_shards(run)
    return samples_documents(run)


def is_sampled(run: Any) -> str:
    """The pool of a fit."""
    return samples_pool(run) if _only_fits(run) else ""


def reads_pool(run: Any) -> str:
    """Read where the run goes through the pool: all runs but fits that learn nothing from it."""
    return samples_pool(run) if _only_fits(run) else on_shards(run)


def reads_documents(run: Any) -> str:
    """Read where lines or rows are read; `select` checks it against the scores that it takes."""
    named = getattr(run, "target", ()) or _names_documents(run)
    return "" if named or not _only_fits(run) else samples_pool(run)


def reads_texts(run: Any) -> str:
    """Read where texts are read, which selecting on a stream does not do."""
    return on_shards(run) if hasattr(run, "selector") else reads_documents(run)


def reads_targets(run: Any) -> str:
    """Read where targets are read, or other documents that the pool's are compared with."""
    named = getattr(run, "target", ()) or getattr(run, "query", ()) or _names_files(getattr(run, "selector", None))
    return "" if named else "no target is read; name one with --target, or drop it"


def reads_shards(run: Any) -> str:
    """Read where shards are read for the first time; those that were scored are only copied."""
    return on_shards(run) or scores(run) or (samples_pool(run) if _only_fits(run) else "")


def identifies(run: Any) -> str:
    """Read where documents are told apart, for draws and ties."""
    return samples_pool(run) if _only_fits(run) else on_shards(run)


def counts_domains(run: Any) -> str:
    """Read where domains are counted."""
    return "is for scores, and a fit looks at no domains; drop it" if _only_fits(run) else on_shards(run)


def _selects(run: Any) -> bool:
    """True if the run selects from existing scores, or from those on a stream."""
    if not hasattr(run, "selector") or run.scorer is not None or run.fitted is not None:
        return False
    return is_stream(run) or not takes_documents(run)


def takes_documents(run: Any) -> bool:
    """True if the run selects from shards without scores, by a rule that needs none."""
    from dvsel.interface.checked import follows_scores  # which needs numpy, and no run is light by then
    from dvsel.score_files.find import holds_rows

    if run.scorer or run.fitted or not run.pool or any(map(holds_rows, run.pool)):
        return False
    rule = run.selector
    return rule is not None and not isinstance(rule, SetSelector) and not follows_scores(rule)


def _names_files(selector: Any) -> bool:
    """True if options of a selector name documents."""
    fields = getattr(selector, "__dataclass_fields__", {}).values()
    return any(field.metadata.get("files") and getattr(selector, field.name) for field in fields)


def _only_fits(run: Any) -> bool:
    """True for a run of `dvsel fit`."""
    return hasattr(run, "distil") and not hasattr(run, "fitted")


def _steps(run: Any) -> str:
    scorer = getattr(run, "scorer", None)
    return scorer.steps if scorer is not None else ""


def _names_documents(run: Any) -> bool:
    """True if options of the scorer name documents."""
    scorer = getattr(run, "scorer", None)
    fields = getattr(scorer, "__dataclass_fields__", {}).values()
    return any(field.metadata.get("documents") and getattr(scorer, field.name) for field in fields)
