"""A small fitted file of every scorer, in each of the forms that its arrays take, and documents to score with them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import language_models
from dvsel.documents.columns import Batch, Column
from dvsel.documents.vectors import Maker, Vectors
from dvsel.fasttext.classifier import classify
from dvsel.fasttext.examples import LABELS
from dvsel.fasttext.training import learn
from dvsel.interface.registry import scorer_class
from dvsel.runs import fitted_files as storage
from dvsel.scorers import Fitted
from dvsel.scorers.distilled import Distilled, FittedDistilled
from dvsel.scorers.preselect import FittedPreSelect, PreSelect
from fasttext_models import quantise, train

MAKER = Maker("some-encoder", "00ff", "mean", 6, 128)
WIDTH = 6
TEXTS = tuple(text[:90] for text in language_models.TEXTS[:12])
ODD_TEXTS = ("", " \n", "\0", "a", "the " * 600, "x" * 300, "\U0001f642 café ’ 中文", *TEXTS[:2])


def batch(texts: Sequence[str], fields: Sequence[str] = ("label",)) -> Batch:
    """Documents with vectors, and in turn one of three labels in each of the fields."""
    labels = Column.of([(b"bad", b"good", b"neither")[row % 3] for row in range(len(texts))])
    draws = np.random.default_rng(len(texts))
    vectors = draws.normal(size=(len(texts), WIDTH)) + 3 * np.eye(WIDTH)[np.arange(len(texts)) % 3]
    keys = draws.integers(1 << 63, size=len(texts)).astype(np.uint64)
    values = Vectors(vectors.astype(np.float32), MAKER)
    return Batch(Batch.of(texts).text, dict.fromkeys(fields, labels), keys, values)


def makers(folder: Path) -> dict[str, Callable[[], Fitted]]:
    """How to make each, by `scorer` or `scorer-form`; models lie in `folder`."""
    model = functools.cache(lambda: language_models.build(folder / "llama", hidden=16, layers=1, window=64))
    other = functools.cache(lambda: language_models.build(folder / "other", hidden=16, layers=1, window=64, seed=1))

    def scored(name: str, **options: Any) -> Callable[[], Fitted]:
        return lambda: _fit(name, model=model(), precision="fp32", **options)

    def checkpoints(name: str, **options: Any) -> Callable[[], Fitted]:
        return lambda: _fit(name, checkpoints=(model(), other()), precision="fp32", **options)

    lora = {"lora_rank": 2, "epochs": 2, "batch_documents": 3, "learning_rate": 1e-2}
    return {
        "dsir": lambda: _fit("dsir", buckets=64, min_words=0),
        "dsir-targets": lambda: _fit("dsir", buckets=64, ngrams=3, normalise="length", separate_targets=True),
        "fasttext": lambda: _fit(
            "fasttext", model=_classifier(folder / "words.bin", wordNgrams=2, bucket=50), label="l0"
        ),
        "fasttext-runs": lambda: _fit(
            "fasttext", model=_classifier(folder / "runs.bin", minn=2, maxn=4, bucket=50, loss="ova"), label="l1,l2"
        ),
        "fasttext-labels": lambda: _fit("fasttext", model=_classifier(folder / "labels.bin", dim=2), label="l1"),
        "fasttext-file": lambda: _fit("fasttext", model=_quantised(folder / "file.bin"), label="l1"),
        "fasttext-tree": lambda: _fit("fasttext", model=_classifier(folder / "tree.bin", loss="hs"), label="l1"),
        "preselect": _preselect,
        "distilled": lambda: _distilled("weights"),
        "distilled-vectors": lambda: _distilled("weights", "vectors"),
        "target": lambda: _fit("target"),
        "target-max": lambda: _fit("target", preset="rds-max", cost="squared"),
        "label-noise": lambda: _fit("label-noise", neighbours=3),
        "label-noise-margin": lambda: _fit("label-noise", mode="margin", clean=("clean.jsonl",)),
        "label-noise-lava": lambda: _fit("label-noise", mode="lava", clean=("clean.jsonl",)),
        "perplexity": scored("perplexity"),
        "el2n": scored("el2n"),
        "grand": checkpoints("grand"),
        "vog": checkpoints("vog"),
        "self-influence": scored("self-influence"),
        "self-influence-ekfac": scored("self-influence", preconditioner="ekfac", layers="*.mlp.*"),
        "influence": scored("influence", rank=2, separate_targets=True),
        "datainf": scored("datainf", rank=2, similarity="cosine"),
        "mirror": scored("mirror", rank=2, separate_targets=True),
        "tracin": checkpoints("tracin", rank=2),
        "trak": checkpoints("trak", projection_dim=16, layers="*.mlp.*"),
        "less": scored("less", separate_targets=True, **lora),
    }


def write(folder: Path) -> dict[str, Path]:
    """All of them as files."""
    found = {}
    for name, make in makers(folder).items():
        found[name] = folder / f"{name}.fitted"
        storage.save(make(), str(found[name]))
    return found


def _fit(name: str, **options: Any) -> Fitted:
    targets: Mapping[str, list[Batch]] = {name: [batch(TEXTS[at : at + 3])] for name, at in (("a", 0), ("b", 3))}
    scorer = scorer_class(name)(**options)
    if "clean" in options:
        targets = {"clean": [batch(TEXTS)]}
    return scorer.fit([batch(TEXTS * 4)], targets)


def _classifier(path: Path, **options: Any) -> str:
    texts = {f"l{label}": [f"word{number} w{number % 7} café {label}" for number in range(40)] for label in range(3)}
    return str(train(path, texts, **{"dim": 4} | options))


def _quantised(path: Path) -> str:
    """With a quantised output too, which takes 256 labels, and norms apart."""
    texts = {f"l{label}": [f"word{label} w{label % 7}"] * 2 for label in range(300)}
    return str(quantise(train(path, texts, dim=4, wordNgrams=2, bucket=300), qnorm=True, qout=True, cutoff=400))


def _preselect() -> Fitted:
    scorer = PreSelect(ladder="ladder.yaml", dim=4, buckets=50, max_chars=3)
    cats, dogs = ([f"{name} number {number}" for number in range(60)] for name in ("cat", "dog"))
    model, report = learn([Batch.of(cats)], [Batch.of(dogs)], scorer, scorer.preprocess)
    made = FittedPreSelect(scorer, classify(scorer, model, LABELS[0], scorer.preprocess).arrays)
    strength = {"strength": "pairs", "documents": [60, 60], "in_order": 7, "pairs": 3, "tied": 1}
    made.report = report | {
        "ladder": [{"name": "small", "score": 0.5, "bits_per_char": 1.25}],
        "strength": strength,
        "labelled": {"positive": 60, "negative": 60},
        "ranking": {"held_out": {"documents": 3}},
    }
    return made


def _distilled(*learned: str) -> Fitted:
    scorer = Distilled(teacher="slow model=m", buckets=50)
    if "vectors" in learned:
        scorer = MAKER.chosen_in(scorer)
    draws = np.random.default_rng(0)
    weights: dict[str, Any] = {
        "weights": draws.normal(size=(2, 50)).astype(np.float32),
        "vectors": draws.normal(size=(2, WIDTH)),
    }
    arrays = {name: weights[name] for name in learned} | {"intercepts": np.ones(2)}
    made = FittedDistilled(scorer, arrays, groups=("code", "maths"), shares=(0.5, 0.5))
    teacher = {"scorer": "influence", "options": {}, "selector": "topk", "fingerprint": "f"}
    found = {"embeddings": 0.1, "penalty": 0.1, "trained": 960, "held_out": 240, "top_tenth": 0.6, "spearman": 0.5}
    made.report = {
        "teacher": teacher | {"documents": 1200, "bytes": 4_000_000, "unscored": 3},
        "groups": [{"name": name} | found for name in ("code", "maths")],
        "embedder": dataclasses.asdict(MAKER),
    }
    return made
