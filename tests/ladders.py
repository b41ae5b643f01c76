"""Small ladders for tests: models that know nothing, so that documents order them in every way there is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

import corpus
import language_models

SCORES = {"low": 0.2, "middle": 0.3, "high": 0.5}
_WORDS = 30


def build(folder: Path, scores: Mapping[str, float] = SCORES) -> Path:
    """Save a model for each name into `folder`/rungs, and the ladder of them, whose path it returns."""
    for seed, name in enumerate(scores):
        place = folder / "rungs" / name
        if not place.exists():
            language_models.build(place, seed=seed, hidden=16, layers=1, initializer_range=0.02)
    return write(folder / "ladder.yaml", scores)


def write(place: Path, scores: Mapping[str, float]) -> Path:
    """A ladder of models that `build` has saved beside it."""
    models = [{"model": f"rungs/{name}", "score": score} for name, score in scores.items()]
    place.write_text(yaml.safe_dump({"models": models}))
    return place


def documents(count: int = 300) -> list[corpus.Document]:
    """Short documents, each text once."""
    found: dict[str, corpus.Document] = {}
    for document in corpus.documents():
        words = document["text"].split(" ")
        for part, first in enumerate(range(0, len(words) - _WORDS, _WORDS)):
            text = " ".join(words[first : first + _WORDS])
            found.setdefault(text, document | {"id": f"{document['id']}/{part}", "text": text})
    return list(found.values())[:: max(len(found) // count, 1)][:count]
