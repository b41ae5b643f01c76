"""Linear datamodeling scores: how well scores of documents foretell what training on any half of them does.

    python benchmarks/lds.py [--data FOLDER] [--cache FOLDER] [--retrainings 120] [--only NAME ...] [--again NAME ...]

LDS (Park et al. 2023, "TRAK: Attributing Model Behavior at Scale") is, for one query, the rank correlation over
retrainings between the sum of the scores of the documents that were kept and minus the query's loss. `lds_truth` makes
the retrainings, about 20 CPU minutes at the first run; `lds_dvsel` has dvsel's variants, `lds_peers` other libraries
(`pip install -c constraints.txt -r benchmarks/requirements.txt`). Truth and scores are kept in the cache; --again
scores again what has these words in its name, --truth only makes the truth, of which several processes take their
share.

The table: LDS for single queries, mean and standard error over them; LDS for the domains' queries as one target each,
against their mean loss; CPU seconds to fit and to score all candidates, and all of it as a multiple of a training step,
forward and backward, over them. dvsel is timed with the domains as five targets, others with all queries.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import logging
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lds_dvsel import methods
from lds_peers import families
from lds_scores import Clock, Floats, Missing, Question, Scored
from lds_truth import DATA, Settings, Truth, encode, losses, truth
from measure import machine, table
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

_BATCH, _SHARE = 50, 5


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    settings = Settings()
    known = truth(settings, options.data, options.cache, options.retrainings)
    if options.truth:
        return
    question = Question(
        known.model, known.texts.candidates, known.texts.queries, known.query_groups, known.folder / "scratch"
    )
    answers, missing = collect(question, known.folder / "scores", options.only, options.again)
    print(machine())
    print(describe(known))
    table("Linear datamodeling scores", HEADS, rows(known, answers))
    for name, why in missing.items():
        print(f"  {name}: not run; {why}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--retrainings", type=int, default=120)
    parser.add_argument("--truth", action="store_true", help="make the truth alone")
    return parser.parse_args()


def add_options(parser: argparse.ArgumentParser) -> None:
    """--data, --cache, --only and --again."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dvsel" / "lds"
    parser.add_argument("--data", type=Path, default=DATA, help="folder with pool/DOMAIN.jsonl and labelled/SET.jsonl")
    parser.add_argument("--cache", type=Path, default=cache)
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="what has one of these in its name")
    parser.add_argument("--again", nargs="+", default=[], metavar="NAME", help="score again")


def collect(
    question: Question, folder: Path, only: Sequence[str], again: Sequence[str], of: Sequence[str] = ()
) -> tuple[dict[str, Scored], dict[str, str]]:
    """The answers of all methods by name, from their files where they are there; and why others are missing.

    only, again: parts of names, to score, and to score though there is a file. of: whole names; () for all.
    """
    answers: dict[str, Scored] = {}
    missing: dict[str, str] = {}
    for names, run in _all(question):
        wanted = [name for name in names if any(word in name for word in only) and (not of or name in of)]
        if not wanted:
            continue
        files = {name: folder / f"{re.sub('[^a-z0-9.]+', '-', name.lower())}.npz" for name in names}
        fresh = any(word in name for name in wanted for word in again)
        if fresh or not all(files[name].exists() for name in wanted):
            try:
                step = training_step(question)
                for name, scored in run:
                    dataclasses.replace(scored, step=step).save(files[name])
                    print(f"{name}: fitted in {scored.fit:.1f}, scored in {scored.score:.1f} CPU s", file=sys.stderr)
            except Missing as error:
                missing |= dict.fromkeys(wanted, str(error))
            except Exception as error:  # of other libraries, to be named in the table
                missing |= dict.fromkeys(wanted, f"{type(error).__name__}: {str(error).splitlines()[0]}")
        answers |= {name: Scored.load(files[name]) for name in wanted if files[name].exists()}
    return answers, {name: why for name, why in missing.items() if name not in answers}


def _all(question: Question) -> Iterator[tuple[Sequence[str], Iterator[tuple[str, Scored]]]]:
    """Names of answers, and what gives them when it is asked."""
    yield ["bigram tf-idf cosine"], ((name, words(question)) for name in ["bigram tf-idf cosine"])
    for name, method in methods():
        yield [name], ((name, method(question)) for name in [name])
    for family in families():
        yield family.names, _checked(family, question)


def _checked(family: Any, question: Question) -> Iterator[tuple[str, Scored]]:
    family.check()
    yield from family.run(question)


def words(question: Question) -> Scored:
    """Cosines of tf-idf vectors of pairs of neighbouring tokens: what no model is needed for."""
    clock = Clock()
    tokenizer = AutoTokenizer.from_pretrained(question.model)
    counts = [_pairs(tokenizer, text) for text in [*question.candidates, *question.queries]]
    places = {pair: place for place, pair in enumerate(sorted({pair for count in counts for pair in count}))}
    vectors = np.zeros((len(counts), len(places)), np.float32)
    for row, count in enumerate(counts):
        vectors[row, [places[pair] for pair in count]] = list(count.values())
    vectors *= np.log(len(vectors) / (vectors > 0).sum(0))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    documents, queries = np.split(vectors, [len(question.candidates)])
    return Scored.of(question, documents @ queries.T, 0.0, clock.lap())


def _pairs(tokenizer: Any, text: str) -> Counter[tuple[int, int]]:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return Counter(itertools.pairwise(ids))


def training_step(question: Question) -> float:
    """CPU seconds of forward and backward over the candidates, without an optimizer, from every fifth of them."""
    some = question.candidates[::_SHARE]
    model = AutoModelForCausalLM.from_pretrained(question.model)
    ids = encode(AutoTokenizer.from_pretrained(question.model), some)
    clock = Clock()
    for batch in torch.split(ids, _BATCH):
        losses(model, batch).mean().backward()  # type: ignore[no-untyped-call]
        model.zero_grad()
    return clock.lap() * len(question.candidates) / len(some)


@dataclass(frozen=True)
class Quality:
    """LDS of each query and of each group."""

    queries: Floats
    groups: Floats


def quality(known: Truth, scored: Scored) -> Quality:
    group_losses = np.stack([known.losses[:, list(group)].mean(1) for group in known.query_groups], 1)
    return Quality(lds(known, scored.queries, known.losses), lds(known, scored.groups, group_losses))


def lds(known: Truth, scores: Floats, measured: Floats) -> Floats:
    """Spearman's correlation, for each column, of summed scores (candidates, columns) and minus what was measured
    (retrainings, columns).
    """
    one, other = _ranks(known.kept @ scores), _ranks(-measured)
    found: Floats = (one * other).mean(0)
    return found


def _ranks(values: Floats) -> Floats:
    """Ranks in each column, with mean 0 and variance 1."""
    ranks = values.argsort(0).argsort(0).astype(np.float64)
    found: Floats = (ranks - ranks.mean(0)) / ranks.std(0)
    return found


def describe(known: Truth) -> str:
    """What the truth is, in a few lines."""
    settings = known.settings
    return (
        f"Llama, {settings.layers} layers of {settings.width}, trained {settings.epochs} epochs on "
        f"{len(known.texts.pretraining):,} documents of {', '.join(settings.domains)}\n"
        f"{len(known.kept)} retrainings on halves of {len(known.texts.candidates):,} candidates of "
        f"{settings.tokens} tokens; {len(known.texts.queries)} queries, loss {known.before.mean():.3f} before and "
        f"{known.losses.mean():.3f} after, standard deviation over retrainings {known.losses.std(0).mean():.4f}"
    )


HEADS = ["", "LDS, a query", "error", "LDS, 5 groups", "error", "fit, CPU s", "score, CPU s", "of", "x training step"]


def rows(known: Truth, answers: Mapping[str, Scored]) -> Iterator[list[str]]:
    for name, scored in answers.items():
        found = quality(known, scored)
        yield [
            name,
            *_mean(found.queries),
            *_mean(found.groups),
            f"{scored.fit:.1f}" if scored.fit else "",
            f"{scored.score:.1f}",
            scored.costs,
            f"{(scored.fit + scored.score) / scored.step:.1f}",
        ]


def _mean(values: Iterable[float]) -> tuple[str, str]:
    """Mean and standard error."""
    found = np.array(list(values))
    return f"{found.mean():.3f}", f"{found.std(ddof=1) / len(found) ** 0.5:.3f}"


if __name__ == "__main__":
    main()
