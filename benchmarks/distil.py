"""Distilling: the teacher beside what learned from it, on documents of the pool that neither has seen, on one core.

    python benchmarks/distil.py [--pool FILE ...] [--target FILE] [--model FOLDER] [--teachers perplexity influence]
                                [--documents 2000] [--test-documents 500] [--repeats 3] [--embedder FOLDER]

Without --model it is a small Llama of random weights. Both score the test documents, the distilled one again and again
for its time to be measured; CPU time is taken. The cost of the fit, teacher and sample, is shown beside.

With --embedder the pool is embedded by that model, and a second table says how well embeddings and n-grams imitate the
same scores, by the part that embeddings make up of the features, on the documents that the fit holds out.
"""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import torch
from corpora import Corpus, corpus, parser_of
from measure import Cost, alternate, here, machine, ratio, spread, table
from perplexity import build

from dvsel.commands.distil import TEACHER, documents_of, scores_of
from dvsel.commands.embed import EmbedRun, embed
from dvsel.commands.fit import fit
from dvsel.distillation.student import StudentInputs, learn
from dvsel.documents.columns import Batch
from dvsel.embeddings import EmbedderOptions
from dvsel.interface.registry import scorer_class
from dvsel.linalg.ranks import spearman
from dvsel.runs import fitted_files
from dvsel.runs.output_folder import STEPS
from dvsel.runs.requests import Execution, FitRun, Fitting
from dvsel.scorers import Fitted
from dvsel.scorers.distilled import Distilled

_TIMES = 40  # that the distilled scorer does what the teacher does once


def main() -> None:
    parser = parser_of(__doc__, repeats=3)
    parser.add_argument("--model", metavar="FOLDER", help="causal language model; by default random weights")
    parser.add_argument("--teachers", nargs="+", default=["perplexity", "influence"], metavar="SCORER")
    parser.add_argument("--documents", type=int, default=2000, help="that the teacher scores to be learned from")
    parser.add_argument("--test-documents", type=int, default=500)
    parser.add_argument("--embedder", metavar="FOLDER", help="sentence encoder or language model")
    parser.add_argument("--embedder-tokens", type=int, default=128, help="that it reads of a document")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with corpus(options) as documents:
        model = options.model or made_up(documents)
        random.Random(0).shuffle(documents.documents)
        test = [document["text"] for document in documents.documents[: options.test_documents]]
        pool = documents.folder / "pool.jsonl"
        pool.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in documents.documents[options.test_documents :]))
        print(machine())
        for name in options.teachers:
            run = fit_run(name, model, pool, documents, options.documents)
            compare(name, run, test, options.repeats)
            if options.embedder:
                by_part(name, run, embedded(pool, options.embedder, options.embedder_tokens))


def made_up(documents: Corpus) -> str:
    """A small Llama of random weights."""
    folder = documents.folder / "model"
    build([document["text"] for document in documents.documents], folder)
    return str(folder)


def fit_run(name: str, model: str, pool: Path, documents: Corpus, count: int) -> FitRun:
    """Distil the scorer of that name, whatever comes of it."""
    cls: Any = scorer_class(name)
    target = (documents.target,) if cls.takes_target else ()
    output = str(documents.folder / f"{name}.fitted")
    return FitRun(
        scorer=cls(model=model),
        pool=(str(pool),),
        fitting=Fitting(target=target, distil=True, distil_documents=count, distil_floor=0.0),
        output=output,
    )


def compare(name: str, run: FitRun, test: list[str], repeats: int) -> None:
    """Distil, let both score the test documents, and print speed and agreement."""
    cost = here(lambda: fit(run, Execution(workers=1)))
    teacher, distilled = (fitted_files.load(place)[0] for place in (f"{run.output}{STEPS}/{TEACHER}", run.output))
    true, found = scores(teacher, test), scores(distilled, test)
    rounds = alternate(
        {"teacher": lambda: timed(teacher, test, 1), "distilled": lambda: timed(distilled, test, _TIMES)}, repeats
    )
    done = {"teacher": len(test), "distilled": len(test) * _TIMES}
    faster = ratio(rounds, "teacher", "distilled", "cpu", _TIMES)
    known = np.isfinite(true) & np.isfinite(found)
    held_out = distilled.report["groups"][0]
    table(
        f"{name}, {len(test)} documents; {repeats} rounds, min / median / max",
        ["", "documents a second of CPU time", "times the teacher"],
        [
            [
                one,
                spread((done[one] / cost.cpu for cost in rounds[one]), 0),
                spread(faster if one == "distilled" else [1.0], 0),
            ]
            for one in rounds
        ],
    )
    print(
        f"  fitted on {held_out['trained']:,} documents in {cost.cpu:,.0f} s of CPU time, all but a few the teacher's"
    )
    agreement = f"{spearman(found[known], true[known]):.3f}; the fit's own estimate {held_out['spearman']:.3f}"
    print(f"  rank correlation: {agreement}")
    print(f"  of the teacher's best tenth {overlap(found[known], true[known]):.0%} are in the distilled one's")


def embedded(pool: Path, model: str, max_tokens: int) -> str:
    """The pool with vectors; made once."""
    output = str(pool.parent / "emb")
    embed(
        EmbedRun(pool=(str(pool),), embedder=EmbedderOptions(model=model, max_tokens=max_tokens), output=output),
        Execution(workers=1),
    )
    return output


def by_part(name: str, run: FitRun, pool: str) -> None:
    """Distil the same teacher on a pool of embeddings, and print how well each part of them does on its own."""
    student = Distilled(teacher=f"{run.output}{STEPS}/{TEACHER}")
    run = FitRun(
        scorer=student,
        pool=(pool,),
        fitting=Fitting(distil_documents=run.fitting.distil_documents, distil_floor=0.0),
        output=f"{run.output}.emb",
    )
    distilled = fit(run, Execution(workers=1))
    steps = run.output + STEPS
    features = StudentInputs.of(documents_of(run.reading, steps), student.spec, student)
    true = scores_of(steps)[:, 0].astype(np.float64)
    rows = []
    for part, design in features.designs.items():
        found = learn(dataclasses.replace(features, designs={part: design}), true, name)
        rows.append([f"{part:g}", f"{found.spearman:.3f}", f"{found.top_tenth:.0%}"])
    chosen = distilled.report["groups"][0]
    table(
        f"{name}, {chosen['held_out']} documents held out of {chosen['trained'] + chosen['held_out']}; "
        f"chosen: {chosen['embeddings']:g}",
        ["embeddings, the rest n-grams", "rank correlation", "best tenth"],
        rows,
    )


def scores(fitted: Fitted, texts: list[str]) -> npt.NDArray[np.float32]:
    """The scores of the only group."""
    return fitted.score(Batch.of(texts))


def timed(fitted: Fitted, texts: list[str], times: int) -> Cost:
    """Score them so many times."""
    batch = Batch.of(texts)
    return here(lambda: [fitted.score(batch) for _ in range(times)])


def overlap(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """The share of the best tenth by one that is in the best tenth by the other."""
    count = max(len(one) // 10, 1)
    return len(np.intersect1d(np.argsort(one)[-count:], np.argsort(other)[-count:])) / count


if __name__ == "__main__":
    main()
