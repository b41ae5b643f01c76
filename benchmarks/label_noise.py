"""Which labels were flipped? The scorer `label-noise` beside cleanlab, on the same vectors.

    python benchmarks/label_noise.py DATA CACHE --model MODEL [--sets NAME ...] [--noise KIND ...] [--seeds N]

DATA holds SET.train.jsonl.zst and SET.test.jsonl.zst with `id`, `text` and `label`; the test documents are the clean
ones of `margin` and `lava`. uniform20 changes 20% of the labels of train, to any other one with the same probability,
with several seeds. Other noise is read from DATA/noise/SET.train.KIND.jsonl.zst (`id`, `label_noisy`, `flipped`).
Vectors are kept in CACHE.

cleanlab is asked in three ways: `get_label_quality_scores` by self-confidence and by normalized margin, with
out-of-sample probabilities of scikit-learn's logistic regression (5 folds), and Datalab with the vectors alone, which
asks neighbours. Each cell is the mean area under the ROC, in thousandths, with the standard deviation over seeds; the
last row is CPU seconds for all sets, fit and scores of one seed, without embedding.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard
from cleanlab import Datalab
from cleanlab.rank import get_label_quality_scores
from measure import machine, table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from dvsel.documents.columns import Batch, Column
from dvsel.documents.vectors import Maker, Vectors
from dvsel.embeddings import EmbedderOptions
from dvsel.embeddings.encoder import Embedder
from dvsel.scorers.label_noise import LabelNoise

UNIFORM, SHARE, FOLDS = "uniform20", 0.2, 5
MAX_TOKENS = 128


@dataclass(frozen=True)
class Documents:
    """One split of a set. vectors: float32 (n, d). labels: of n strings."""

    ids: list[str]
    labels: np.ndarray[Any, Any]
    vectors: np.ndarray[Any, Any]
    maker: Maker

    def batch(self, labels: np.ndarray[Any, Any], first_key: int = 0) -> Batch:
        """As a scorer sees it, with these labels."""
        count = len(labels)
        return Batch(
            Column.of([b"-"] * count),
            {"label": Column.of([label.encode() for label in labels])},
            np.arange(first_key, first_key + count, dtype=np.uint64),
            Vectors(self.vectors, self.maker),
        )


@dataclass(frozen=True)
class Task:
    """Documents with some labels flipped. clean: documents whose labels are right."""

    documents: Documents
    labels: np.ndarray[Any, Any]
    flipped: np.ndarray[Any, Any]
    clean: Documents


def read(path: Path) -> list[dict[str, Any]]:
    with zstandard.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Sets:
    """The labelled sets, embedded once."""

    def __init__(self, data: Path, cache: Path, model: str) -> None:
        self._data, self._cache = data, cache
        self._options = EmbedderOptions(model, max_tokens=MAX_TOKENS)
        self._embedder: Embedder | None = None

    def split(self, name: str, part: str) -> Documents:
        rows = read(self._data / f"{name}.{part}.jsonl.zst")
        path = self._cache / f"{name}.{part}.npz"
        if not path.exists():
            self._embedder = self._embedder or Embedder(self._options)
            made = self._embedder.embed([row["text"] for row in rows])
            np.savez(path, vectors=made, maker=json.dumps(_values(self._embedder.maker)))
        with np.load(path) as kept:
            vectors, maker = kept["vectors"], Maker.of(json.loads(str(kept["maker"])))
        labels = np.array([str(row["label"]) for row in rows])
        return Documents([row["id"] for row in rows], labels, vectors, maker)

    def prepared(self, name: str, kind: str, train: Documents, clean: Documents) -> Task | None:
        """The task of a noise file; None where there is none for this set."""
        path = self._data / "noise" / f"{name}.train.{kind}.jsonl.zst"
        if not path.exists():
            return None
        noise = {row["id"]: row for row in read(path)}
        rows = [row for row, id in enumerate(train.ids) if id in noise]
        found = [noise[train.ids[row]] for row in rows]
        known = Documents([train.ids[row] for row in rows], train.labels[rows], train.vectors[rows], train.maker)
        labels = np.array([str(one["label_noisy"]) for one in found])
        return Task(known, labels, np.array([one["flipped"] for one in found]), clean)

    def tasks(self, name: str, kinds: list[str], seeds: int) -> Iterator[tuple[str, Task]]:
        """Each kind of noise with its task, the uniform one once a seed."""
        train, clean = self.split(name, "train"), self.split(name, "test")
        for kind in kinds:
            if kind == UNIFORM:
                for seed in range(seeds):
                    yield kind, Task(train, *uniform(train.labels, seed), clean)
            elif (task := self.prepared(name, kind, train, clean)) is not None:
                yield kind, task


def _values(maker: Maker) -> dict[str, Any]:
    return {name: getattr(maker, name) for name in Maker.__slots__}


def uniform(labels: np.ndarray[Any, Any], seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Labels with a share of them flipped, and which ones are."""
    draw = np.random.default_rng(seed)
    names, codes = np.unique(labels, return_inverse=True)
    flipped = np.zeros(len(labels), bool)
    flipped[draw.choice(len(labels), round(SHARE * len(labels)), replace=False)] = True
    shift = draw.integers(1, len(names), len(labels))
    return names[np.where(flipped, (codes + shift) % len(names), codes)], flipped


def dvsel(mode: str) -> Callable[[Task], dict[str, Any]]:
    def scores(task: Task) -> dict[str, Any]:
        clean = task.clean.batch(task.clean.labels, first_key=len(task.labels))
        batch = task.documents.batch(task.labels)
        scorer = LabelNoise(mode=mode, clean=() if mode == "knn" else ("clean",))
        return {f"dvsel {mode}": scorer.fit([batch], {"clean": [clean]}).score(batch)}

    return scores


def cleanlab(task: Task) -> dict[str, Any]:
    _, codes = np.unique(task.labels, return_inverse=True)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    model = LogisticRegression(max_iter=1000)
    probabilities = cross_val_predict(model, task.documents.vectors, codes, cv=folds, method="predict_proba")
    methods = {"self": "self_confidence", "margin": "normalized_margin"}
    return {
        f"cleanlab {name}": get_label_quality_scores(codes, probabilities, method=method)
        for name, method in methods.items()
    }


def datalab(task: Task) -> dict[str, Any]:
    lab = Datalab({"label": task.labels}, label_name="label", verbosity=0)
    lab.find_issues(features=task.documents.vectors, issue_types={"label": {}})
    return {"cleanlab knn": lab.get_issues("label")["label_score"].to_numpy()}


METHODS = (cleanlab, datalab, dvsel("margin"), dvsel("knn"), dvsel("lava"))
COLUMNS = ("cleanlab self", "cleanlab margin", "cleanlab knn", "dvsel margin", "dvsel knn", "dvsel lava")


def area(task: Task, scores: np.ndarray[Any, Any]) -> float:
    """Under the ROC, over documents with a score."""
    scored = ~np.isnan(scores)
    return 1000 * float(roc_auc_score(task.flipped[scored], -scores[scored]))


def cell(areas: list[float]) -> str:
    spread = f" +-{np.std(areas):.1f}" if len(areas) > 1 else ""
    return f"{np.mean(areas):.1f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--model", required=True, help="folder or hub name of a sentence encoder")
    parser.add_argument("--sets", nargs="*", help="default: all in DATA")
    parser.add_argument("--noise", nargs="*", default=[UNIFORM, "sym10", "sym30", "asym20"])
    parser.add_argument("--seeds", type=int, default=3)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    wanted.cache.mkdir(parents=True, exist_ok=True)
    sets = Sets(wanted.data, wanted.cache, wanted.model)
    names = wanted.sets or sorted(path.name.split(".")[0] for path in wanted.data.glob("*.train.jsonl.zst"))
    areas: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    seconds: dict[str, float] = defaultdict(float)
    for name in names:
        for kind, task in sets.tasks(name, wanted.noise, wanted.seeds):
            for column, scores, taken in measured(task):
                areas[kind, name][column].append(area(task, scores))
                seconds[column] += taken / wanted.seeds if kind == UNIFORM else 0
    print(machine())
    for kind in wanted.noise:
        found = {name: areas[kind, name] for name in names if areas[kind, name]}
        rows = [[name, *(cell(one[column]) for column in COLUMNS)] for name, one in found.items()]
        table(kind, ("", *COLUMNS), rows)
    table("CPU seconds", ("", *COLUMNS), [["all", *(f"{seconds[column]:.1f}" for column in COLUMNS)]])


def measured(task: Task) -> Iterator[tuple[str, np.ndarray[Any, Any], float]]:
    """Each column's scores, and CPU seconds."""
    for method in METHODS:
        start = time.process_time()
        found = method(task)
        taken = time.process_time() - start
        for column, scores in found.items():
            yield column, np.asarray(scores), taken


if __name__ == "__main__":
    main()
