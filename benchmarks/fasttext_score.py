"""fastText scoring from a plain JSONL file, on one core: dvsel beside the library and beside datatrove's pipeline.

    python benchmarks/fasttext_score.py [--pool FILE ...] [--megabytes 256] [--peer-megabytes 8] [--repeats 5]

A two-class model of the published kind (bigrams, 2 million buckets, 100 dimensions: 0.9 GB) is trained for it. All
read the same kind of file with the same model and give a document the same probability, which is checked first:

- the library, a document at a time: json.loads, newlines to spaces, predict.
- datatrove: JsonlReader, FastTextClassifierFilter, JsonlWriter. It deletes newlines, so dvsel does as well here.
- dvsel score, inside a process that has started as theirs have, and as a command with all of its start.
- dvsel score and select: the documents above the same threshold are written, as datatrove writes them.

The peers need long, so they get documents drawn from the file at even steps; what is compared is bytes a second.
Needs the packages `datatrove` and `fasttext`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
from corpora import Corpus, corpus, documents_of, parser_of
from datatrove.pipeline.filters import FastTextClassifierFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from measure import DVSEL, Cost, alternate, command, here, machine, ratio, spread, table

from dvsel.commands.score import score
from dvsel.commands.select import select
from dvsel.runs.requests import Execution, ScoreRun, Scoring, SelectRun
from dvsel.score_files.reader import ScoreFile
from dvsel.selectors.threshold import Threshold

_TRAINING_BYTES = 4_000_000
_THRESHOLD = 0.5


def main() -> None:
    parser = parser_of(__doc__, repeats=5)
    parser.add_argument("--megabytes", type=float, default=256)
    parser.add_argument("--peer-megabytes", type=float, default=8)
    options = parser.parse_args()
    with corpus(options) as documents:
        model = train(documents)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        print(machine())
        fold(documents, model, options.repeats)
        compare(documents, model, int(options.megabytes * 1e6), int(options.peer_megabytes * 1e6), options.repeats)


def train(documents: Corpus) -> Path:
    """A model that tells the target from the pool."""
    path, model = documents.folder / "train.txt", documents.folder / "quality.bin"
    texts = [(document["text"], 1) for document in documents_of([documents.target])]
    texts += [(document["text"], 0) for document in documents.documents]
    sizes = np.cumsum([len(text) for text, _ in texts])
    step = max(int(sizes[-1]) // _TRAINING_BYTES, 1)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"__label__{label} {' '.join(text.split())}\n" for text, label in texts[::step])
    made = fasttext.train_supervised(str(path), wordNgrams=2, epoch=2, thread=12, verbose=0)
    made.save_model(str(model))
    return model


def fold(documents: Corpus, model: Path, repeats: int) -> None:
    """Fold the model afresh and from the cache."""
    fitted, cache = documents.folder / "quality.fitted", documents.folder / "cache"
    os.environ["XDG_CACHE_HOME"] = str(cache)

    def fit() -> Cost:
        return command(*DVSEL, "fit", "fasttext", "--model", model, "--preprocess", "datatrove", "--label", "1",
                       "-o", fitted, "--quiet")  # fmt: skip

    def afresh() -> Cost:
        shutil.rmtree(cache, ignore_errors=True)
        return fit()

    rounds = alternate({"folded afresh": afresh, "from the cache": fit}, repeats)
    title = (
        f"a model of {model.stat().st_size / 1e9:.2f} GB folded to {fitted.stat().st_size / 1e6:.0f} MB, whole command"
    )
    table(
        title,
        ["", "s of CPU time", "s", "peak MB"],
        [
            [
                name,
                spread(cost.cpu for cost in costs),
                spread(cost.wall for cost in costs),
                f"{max(cost.peak for cost in costs) / 1e6:.0f}",
            ]
            for name, costs in rounds.items()
        ],
    )


def compare(documents: Corpus, model: Path, size: int, peer_size: int, repeats: int) -> None:
    """Score, and print rates and their ratios."""
    shard, part = documents.write("pool.jsonl", size), documents.sample("part.jsonl", peer_size)
    fitted, scores, kept = (documents.folder / name for name in ("quality.fitted", "scores", "kept"))
    peer = Peer(model, part, documents.folder / "datatrove")
    check(peer, fitted, part, documents.folder / "check")
    runs: dict[str, Callable[[], object]] = {
        "library, a document at a time": peer.probabilities,
        "dvsel score, started": lambda: score_afresh(fitted, shard, scores),
        "datatrove: read, classify, write": peer.filter,
        "dvsel score and select, started": lambda: select_afresh(fitted, shard, kept),
    }
    jobs: dict[str, Callable[[], Cost]] = {name: lambda work=work: here(work) for name, work in runs.items()}  # type: ignore[misc]
    jobs["dvsel score, the command"] = lambda: scoring_command(fitted, shard, scores)
    sizes = {name: (part if "dvsel" not in name else shard).stat().st_size for name in jobs}
    rounds = alternate(jobs, repeats)
    library, _, pipeline, *_ = jobs
    table(
        f"fastText from JSONL, one core; {repeats} rounds, min / median / max",
        ["", "MB", "MB/s of CPU time", "times the library, CPU", "times datatrove, CPU"],
        [
            [
                name,
                f"{sizes[name] / 1e6:.1f}",
                spread((sizes[name] / 1e6 / cost.cpu for cost in rounds[name]), 1),
                *(
                    spread(ratio(rounds, peer, name, "cpu", sizes[name] / sizes[peer]), 1)
                    for peer in (library, pipeline)
                ),
            ]
            for name in jobs
        ],
    )


class Peer:
    """The library, alone and inside datatrove, on one shard."""

    def __init__(self, model: Path, shard: Path, folder: Path) -> None:
        self.shard, self.folder = shard, folder
        self.library = fasttext.load_model(str(model))
        FastTextClassifierFilter._requires_dependencies = []  # a rebuilt wheel of the same library, by its name
        self.classify = FastTextClassifierFilter(str(model), keep_labels=("1", _THRESHOLD))
        self.classify._model = _Predicting(self.library)

    def probabilities(self) -> list[float]:
        """The probability of label 1 of each document."""
        predict = self.library.f.predict
        found = []
        for line in self.shard.open(encoding="utf-8"):
            text = json.loads(line)["text"].strip().replace("\n", "")
            found.append(next(p for p, label in predict(text + "\n", 2, 0.0, "strict") if label == "__label__1"))
        return found

    def filter(self) -> None:
        """Write the documents above the threshold."""
        shutil.rmtree(self.folder, ignore_errors=True)
        reader = JsonlReader(str(self.shard.parent), glob_pattern=self.shard.name)
        writer = JsonlWriter(str(self.folder / "kept"), compression=None)
        deque(writer.run(self.classify.run(reader.run())), maxlen=0)  # as its executor does, but for loading the model


class _Predicting:
    """What datatrove calls; the library's own `predict` fails with numpy 2."""

    def __init__(self, library: Any) -> None:
        self._predict = library.f.predict

    def predict(self, text: str, k: int) -> tuple[tuple[str, ...], Any]:
        probabilities, labels = zip(*self._predict(text + "\n", k, 0.0, "strict"), strict=True)
        return labels, np.asarray(probabilities)


def check(peer: Peer, fitted: Path, shard: Path, folder: Path) -> None:
    """Both give the same probabilities."""
    score_afresh(fitted, shard, folder)
    logits = np.concatenate([rows.score[:, 0] for rows in ScoreFile(str(next(folder.glob("*.parquet")))).rows()])
    ours = 1 / (1 + np.exp(-logits.astype(np.float64))) + 1e-5
    difference = np.abs(ours - peer.probabilities()).max()
    print(f"\nlargest difference of a probability from the library's: {difference:.1e}")
    assert difference < 1e-6


def score_afresh(fitted: Path, shard: Path, output: Path) -> None:
    """Score files for a shard."""
    shutil.rmtree(output, ignore_errors=True)
    score(ScoreRun(pool=(str(shard),), scoring=Scoring(fitted=str(fitted)), output=str(output)), Execution(workers=1))


def select_afresh(fitted: Path, shard: Path, output: Path) -> None:
    """Score, and write what is above the threshold."""
    shutil.rmtree(output, ignore_errors=True)
    run = SelectRun(
        pool=(str(shard),), scoring=Scoring(fitted=str(fitted)), selector=Threshold(min_score=0.0), output=str(output)
    )
    select(run, Execution(workers=1))


def scoring_command(fitted: Path, shard: Path, output: Path) -> Cost:
    """The whole command, with all of its start."""
    shutil.rmtree(output, ignore_errors=True)
    return command(*DVSEL, "score", "fasttext", shard, "--fitted", fitted, "-w", "1", "-o", output, "--quiet")


if __name__ == "__main__":
    main()
