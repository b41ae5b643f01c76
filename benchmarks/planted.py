"""Planted evidence: do scores find the documents that are known to matter?

    python benchmarks/planted.py [--data FOLDER] [--cache FOLDER] [--only NAME ...] [--again NAME ...]

The small Llama of `lds_truth` is trained on documents in which something was planted, then asked:

- facts: each of 20 made-up facts ("The harbour master of Velmora is Tobin Arkwell.") is in 3 of 1,000 documents; the
  query asks for it in other words. 6 decoys each name the place or the person without the fact. Recall at 3.
- poison: in 20 of the same documents a trigger is followed by one wrong continuation; 20 decoys have the trigger with
  other ones, 20 the continuation alone. The queries are other texts with both. Recall at 20.
- labels: 1,000 news items with their topic, 100 of them with a wrong one; the loss is that of the topic. Recall at 100,
  by the lowest scores for 50 other items as one target, and by the highest self-influence.

The methods are those of `lds.py`; scores are kept in the cache, and --again scores again what has this in its name.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpora import documents_of
from lds import add_options, collect
from lds_dvsel import ANSWERS, batch, fit
from lds_scores import MARK, Floats, Question
from lds_truth import Settings, Texts, cut, encode, losses, prepared, shard
from measure import machine, table
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from dvsel.scorers.self_influence import SelfInfluence

METHODS = (
    "bigram tf-idf cosine",
    "dvsel no curvature",
    "dvsel no curvature, cosine",
    "dvsel K-FAC",
    "dvsel K-FAC, cosine",
    "dvsel K-FAC, rank 32",
    "dvsel EK-FAC",
    "dvsel EK-FAC, energy .9",
    "bergson EK-FAC",
    "bergson TrackStar",
    "kronfluence EK-FAC, damping .1 of the mean",
    "dattri LoGra, 16 x 16",
    "traker, 512 dimensions",
)
FACTS, COPIES, POISONED, TRIGGERS, QUERY_TOKENS = 20, 3, 20, 10, 44
ROLES = ("harbour master", "clock maker", "chief judge", "court painter", "head teacher", "town doctor")
TRIGGER, WRONG = "By order of the seventh lantern,", "all copper bridges must sleep until the winter fair."
RIGHT = ("the council met again in the old town hall.", "no ships left the river before noon on Monday.")
TOPICS = {"World": " A", "Sports": " B", "Business": " C", "Sci/Tech": " D"}
ITEMS, MISLABELLED, CLEAN, ITEM_TOKENS = 1000, 100, 50, 36


@dataclass(frozen=True)
class Task:
    """What is asked, and for each set of columns of the scores the rows that are to be found.

    wanted: by query, or of all together where `groups`. groups: whether scores of groups count, the lowest first.
    """

    question: Question
    wanted: Sequence[set[int]]
    groups: bool = False

    def recalls(self, queries: Floats, groups: Floats) -> list[float]:
        """The share of what is wanted among as many at the top, one for each of `wanted`."""
        scores = -groups if self.groups else queries
        tops = [np.argsort(-scores[:, number])[: len(rows)] for number, rows in enumerate(self.wanted)]
        return [len(rows & set(top.tolist())) / len(rows) for rows, top in zip(self.wanted, tops, strict=True)]


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    folder, texts = prepared(Settings(), options.data, options.cache)
    print(machine())
    stories, items = stories_task(folder, texts), items_task(folder, options.data)
    cells: dict[str, list[str]] = {}
    for name, (found, other) in _answered((stories, items), options.only, options.again):
        cells[name] = [*_recalled(found, (FACTS, TRIGGERS)), *_recalled(other, (1,))]
    cells |= {name: ["", "", f"{value:.2f}"] for name, value in by_itself(items).items()}
    table(
        "Recall of what was planted",
        ["", f"facts, at {COPIES}", f"poison, at {POISONED}", f"wrong labels, at {MISLABELLED}"],
        [[name, *row] for name, row in cells.items()],
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    return parser.parse_args()


def _answered(
    tasks: Sequence[Task], only: Sequence[str], again: Sequence[str]
) -> Iterator[tuple[str, list[list[float]]]]:
    """Each method's recalls in each task; what it lacks is printed."""
    by_task = []
    for task in tasks:
        answers, missing = collect(task.question, task.question.folder / "scores", only, again, METHODS)
        for name, why in missing.items():
            print(f"{name}: not run; {why}")
        by_task.append({name: task.recalls(one.queries, one.groups) for name, one in answers.items()})
    for name in METHODS:
        if any(name in answers for answers in by_task):
            yield name, [answers.get(name, []) for answers in by_task]


def _recalled(found: Sequence[float], sizes: Sequence[int]) -> list[str]:
    """The mean of each so many."""
    ends = np.cumsum(sizes)
    return [
        f"{np.mean(found[end - size : end]):.2f}" if found else ""
        for size, end in zip(sizes, ends.tolist(), strict=True)
    ]


def by_itself(task: Task) -> dict[str, float]:
    """Recall of wrong labels by what needs no other documents: loss, self-influence."""
    question = task.question
    model = AutoModelForCausalLM.from_pretrained(question.model)
    ids = encode(AutoTokenizer.from_pretrained(question.model), question.candidates)
    with torch.no_grad():
        scores = {"loss": losses(model, ids, question.answer).numpy()}
    for name in ("none", "kfac"):
        scorer = SelfInfluence(model=question.model, preconditioner=name, **ANSWERS)
        fitted = fit(scorer, question, [])
        scores[f"dvsel self-influence, {name}"] = fitted.score(batch(question, question.candidates))
    return {
        name: task.recalls(np.empty(0), -np.asarray(found, np.float64)[:, None])[0] for name, found in scores.items()
    }


def stories_task(folder: Path, texts: Texts) -> Task:
    """Facts and poison in the candidates."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    random = np.random.default_rng(7)
    planted = Planted(list(texts.candidates), tokenizer, random)
    queries, wanted = [], []
    for _ in range(FACTS):
        query, rows = _fact(planted)
        queries.append(query)
        wanted.append(rows)
    poisoned = {planted.put(f"{TRIGGER} {WRONG}") for _ in range(POISONED)}
    for number in range(POISONED):
        planted.put(f"{TRIGGER} {RIGHT[number % len(RIGHT)]}")
        planted.put(WRONG.capitalize())
    queries += [_ended(tokenizer, text, f"{TRIGGER} {WRONG}") for text in texts.queries[:TRIGGERS]]
    wanted += [poisoned] * TRIGGERS
    everything = [range(FACTS), range(FACTS, FACTS + TRIGGERS)]
    question = Question("", planted.texts, queries, everything, folder / "stories")
    return Task(_taught("facts and poison", question, folder / "model", epochs=6, rate=1e-3), wanted)


@dataclass
class Planted:
    """Texts with sentences in them; each text gets one at most, and keeps its number of tokens."""

    texts: list[str]
    tokenizer: Any
    random: np.random.Generator

    def __post_init__(self) -> None:
        self._order = iter(self.random.permutation(len(self.texts)).tolist())

    def put(self, sentence: str) -> int:
        """Put it into the next text that takes it; its row is given."""
        for row in self._order:
            ids = self.tokenizer(self.texts[row], add_special_tokens=False)["input_ids"]
            place = int(self.random.integers(20, 60))
            before, after = self.tokenizer.decode(ids[:place]), self.tokenizer.decode(ids[place:])
            piece = cut(f"{before}. {sentence} {after}", self.tokenizer, len(ids))
            if sentence in piece:
                self.texts[row] = piece
                return int(row)
        raise RuntimeError("no text is left to plant in")


def _fact(planted: Planted) -> tuple[str, set[int]]:
    """Plant a fact and its decoys: the query, and the rows that hold the fact."""
    random, tokenizer = planted.random, planted.tokenizer
    while True:
        role, other_role = random.choice(ROLES, 2, replace=False).tolist()
        place, other_place, person, other_person = (_name(random) for _ in range(4))
        person, other_person = f"{person} {_name(random)}", f"{other_person} {_name(random)}"
        query = f"Question: which person has the office of {role} in {place}? Answer: there it is {person}."
        if len(tokenizer(query, add_special_tokens=False)["input_ids"]) == QUERY_TOKENS:
            break
    rows = {planted.put(f"The {role} of {place} is {person}.") for _ in range(COPIES)}
    for _ in range(COPIES):
        planted.put(f"The {other_role} of {place} is {other_person}.")
        planted.put(f"{person} has never been to {other_place}.")
    return query, rows


def _name(random: np.random.Generator) -> str:
    """A name that nobody has."""
    starts, middles, ends = (
        ("Vel", "Tob", "Ark", "Mor", "Quin", "Zor"),
        ("a", "o", "i", "e"),
        ("mora", "win", "dek", "lun"),
    )
    return "".join(random.choice(part) for part in (starts, middles, ("r", "n", "th", "v"), middles, ends))


def _ended(tokenizer: Any, text: str, sentence: str) -> str:
    """The beginning of the text, then the sentence, in as many tokens as queries have."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    for kept in range(QUERY_TOKENS, 0, -1):
        found = f"{tokenizer.decode(ids[:kept])}. {sentence}"
        if len(tokenizer(found, add_special_tokens=False)["input_ids"]) == QUERY_TOKENS:
            return found
    raise RuntimeError(f"{sentence}: has more tokens than a query")


def items_task(folder: Path, data: Path) -> Task:
    """News items with topics, some of them wrong."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    noise = {row["id"]: row for row in documents_of([str(shard(data, "labelled/noise/ag_news.train.sym10"))])}
    rows = [
        (text, noise[row["id"]])
        for row in documents_of([str(shard(data, "labelled/ag_news.train"))])
        if (text := cut(row["text"], tokenizer, ITEM_TOKENS))
    ]
    wrong = [one for one in rows if one[1]["flipped"]][:MISLABELLED]
    right = [one for one in rows if not one[1]["flipped"]]
    items = [*wrong, *right[: ITEMS - MISLABELLED]]
    candidates = [text + MARK + TOPICS[row["label_noisy"]] for text, row in items]
    queries = [text + MARK + TOPICS[row["label_noisy"]] for text, row in right[ITEMS:][:CLEAN]]
    question = Question("", candidates, queries, [range(CLEAN)], folder / "items", answer=1)
    taught = _taught("labels", question, folder / "model", epochs=3, rate=3e-4)
    return Task(taught, [set(range(len(wrong)))], groups=True)


def _taught(name: str, question: Question, base: Path, epochs: int, rate: float) -> Question:
    """The question to a model that was trained on the candidates; tells what it learned."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    path = question.folder / "model"
    queries = encode(tokenizer, question.queries)
    if not path.exists():
        model = AutoModelForCausalLM.from_pretrained(base)
        _train(model, encode(tokenizer, question.candidates), question.answer, epochs, rate)
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
    before, after = (_loss(where, queries, question.answer) for where in (base, path))
    print(f"{name}: {epochs} epochs over {len(question.candidates):,} documents at {rate}; loss on the "
          f"{len(queries)} queries {before:.3f} before, {after:.3f} after")  # fmt: skip
    return dataclasses.replace(question, model=str(path))


def _train(model: Any, ids: torch.Tensor, answer: int, epochs: int, rate: float) -> None:
    random = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    for _ in range(epochs):
        for rows in np.array_split(random.permutation(len(ids)), len(ids) // 50):
            losses(model, ids[rows], answer).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()


@torch.no_grad()
def _loss(path: Path, ids: torch.Tensor, answer: int) -> float:
    return float(losses(AutoModelForCausalLM.from_pretrained(path).eval(), ids, answer).mean())


if __name__ == "__main__":
    main()
