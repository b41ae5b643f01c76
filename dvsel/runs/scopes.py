"""Where the options of a run apply: what of it reads each of them.

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
    """Whether it is of lines from stdin."""
    return tuple(run.pool) == (STREAM,)


def on_shards(run: Any) -> str:
    """What goes by shards."""
    return "is for shards, and lines from stdin are none; drop it" if is_stream(run) else ""


def on_a_stream(run: Any) -> str:
    """What goes by lines."""
    return "" if is_stream(run) else "is for lines from stdin, and shards are named; drop it"


def sees_all(run: Any) -> str:
    """What goes by all documents at once."""
    if not is_stream(run):
        return ""
    return "a stream can only be cut at a bound (--min-score); drop it, or take score files (dvsel score -o scores/)"


def writes_a_folder(run: Any) -> str:
    """What is about files that are written."""
    to_stdout = run.output == STDOUT and "is for an output folder, and documents go to stdout; drop it"
    return on_shards(run) or to_stdout or ""


def prints(run: Any) -> str:
    """What goes to stdout, which data may have to itself."""
    taken = is_stream(run) or run.output == STDOUT
    return "goes to stdout, and so do the documents; drop it, or name a folder with -o" if taken else ""


def is_fitted(run: Any) -> str:
    """A scorer that is there; what is on a stream of scores is scored already."""
    return on_shards(run) if hasattr(run, "selector") else ""


def looks_at_vectors(run: Any) -> str:
    """What a rule of selection looks at, where it is known before score files are read."""
    blind = run.selector is not None and not getattr(run.selector, "looks_at_vectors", False)
    return on_shards(run) or ("this method looks at no vectors; drop it, or choose another --method" if blind else "")


def scores(run: Any) -> str:
    """What is about scores that the run gives."""
    return "is for scoring, and this run takes scores as they are; drop it, or add --with" if _selects(run) else ""


def scores_shards(run: Any) -> str:
    """What is about score files that the run writes."""
    return on_shards(run) or scores(run)


def takes_scores(run: Any) -> str:
    """What is about score files that are there."""
    there = "" if _selects(run) else "is for a folder of scores, and this run makes them itself; drop it"
    return on_shards(run) or there


def fits(run: Any) -> str:
    """What is about the fit of a scorer."""
    done = getattr(run, "fitted", None) and "is for a fit, and --fitted names one that is done; drop one of the two"
    return scores(run) or done or ""


def takes_target(run: Any) -> str:
    """What a fit learns the direction from."""
    without = run.scorer is not None and not run.scorer.takes_target
    return fits(run) or ("this method takes none; drop it" if without else "")


def is_distilled(run: Any) -> str:
    """Whether a scorer is distilled once it is fitted."""
    if is_stream(run):
        return "stdin can be read only once; fit first, and give what that writes with --fitted FILE"
    if getattr(run, "fitted", None):
        return (
            "fits a scorer, and --fitted names one; drop one of the two, or see `dvsel score distilled --teacher FILE`"
        )
    return scores(run)


def distils(run: Any) -> str:
    """What says how to distil."""
    return "" if run.distil or _steps(run) == "distil" else "says how to distil; add --distil, or drop it"


def samples_pool(run: Any) -> str:
    """What is about the part of the pool that a fit sees."""
    needs = _steps(run) or getattr(run, "distil", False) or (run.scorer is not None and run.scorer.takes_pool)
    return on_shards(run) or fits(run) or ("" if needs else "is for a fit on the pool, and this is none; drop it")


def samples_documents(run: Any) -> str:
    """What says how documents are drawn, for a fit or to count tokens."""
    return "" if getattr(run, "token_sample", None) else samples_pool(run)


def draws(run: Any) -> str:
    """What is about chance: of samples, of a bandit, and of a selection, where ties go by it too."""
    if hasattr(run, "selector") or getattr(run, "adaptive", False):
        return on_shards(run)
    return samples_documents(run)


def is_sampled(run: Any) -> str:
    """The pool of a fit."""
    return samples_pool(run) if _only_fits(run) else ""


def reads_pool(run: Any) -> str:
    """What is about going through the pool, which all runs do but fits that learn nothing of it."""
    return samples_pool(run) if _only_fits(run) else on_shards(run)


def reads_documents(run: Any) -> str:
    """What is about lines or rows; `select` checks it where they were scored before."""
    named = getattr(run, "target", ()) or _names_documents(run)
    return "" if named or not _only_fits(run) else samples_pool(run)


def reads_texts(run: Any) -> str:
    """What is about the text, which selecting on a stream does not look at."""
    return on_shards(run) if hasattr(run, "selector") else reads_documents(run)


def reads_targets(run: Any) -> str:
    """What is about targets, and about other documents that the pool's are compared with."""
    named = getattr(run, "target", ()) or getattr(run, "query", ()) or _names_files(getattr(run, "selector", None))
    return "" if named else "no target is read; name one with --target, or drop it"


def reads_shards(run: Any) -> str:
    """What is about files as a whole; shards that were scored are only copied."""
    return on_shards(run) or scores(run) or (samples_pool(run) if _only_fits(run) else "")


def identifies(run: Any) -> str:
    """What tells documents apart, for draws and ties."""
    return samples_pool(run) if _only_fits(run) else on_shards(run)


def counts_domains(run: Any) -> str:
    """What is about domains."""
    return "is for scores, and a fit looks at no domains; drop it" if _only_fits(run) else on_shards(run)


def _selects(run: Any) -> bool:
    """Whether the run selects from scores that are there, or from those on a stream."""
    if not hasattr(run, "selector") or run.scorer is not None or run.fitted is not None:
        return False
    return is_stream(run) or not takes_documents(run)


def takes_documents(run: Any) -> bool:
    """Whether the run selects from shards that nobody scored, by a rule that needs no scores."""
    from dvsel.interface.checked import follows_scores  # which needs numpy, and no run is light by then
    from dvsel.score_files.find import holds_rows

    if run.scorer or run.fitted or not run.pool or any(map(holds_rows, run.pool)):
        return False
    rule = run.selector
    return rule is not None and not isinstance(rule, SetSelector) and not follows_scores(rule)


def _names_files(selector: Any) -> bool:
    """Whether options of a rule name documents."""
    fields = getattr(selector, "__dataclass_fields__", {}).values()
    return any(field.metadata.get("files") and getattr(selector, field.name) for field in fields)


def _only_fits(run: Any) -> bool:
    """Whether it is a run of `dvsel fit`."""
    return hasattr(run, "distil") and not hasattr(run, "fitted")


def _steps(run: Any) -> str:
    scorer = getattr(run, "scorer", None)
    return scorer.steps if scorer is not None else ""


def _names_documents(run: Any) -> bool:
    """Whether options of the scorer name documents."""
    scorer = getattr(run, "scorer", None)
    fields = getattr(scorer, "__dataclass_fields__", {}).values()
    return any(field.metadata.get("documents") and getattr(scorer, field.name) for field in fields)
