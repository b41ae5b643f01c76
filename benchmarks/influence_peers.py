"""From JSONL to influence scores, whole commands: `dvsel score influence` beside bergson's `build` and `score`.

    python benchmarks/influence_peers.py [--pool FILE ...] [--target FILE] [--kilobytes 300] [--rank 16] [--repeats 3]

The model is a GPT-NeoX of 4 layers and 256 dimensions with random weights, in fp32, and a byte-level BPE of 2,048
tokens trained on the pool. Documents are cut to `--length` tokens, which both read whole, and batches have as many
tokens. bergson runs as its own documentation has it for a stream: `build` makes the target's mean gradient, `score`
compares each document's gradient with it and writes the score, both projected to rank x rank.

dvsel runs three times: with K-FAC (its default), and with plain gradients, which is what bergson computes here; then
with K-FAC from a file of `dvsel fit`, as a second pool would be scored. One process and one thread each. The commands'
start-up is theirs to pay: `--kilobytes` says for how much text.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import orjson
from corpora import corpus, documents_of, parser_of
from measure import DVSEL, Cost, alternate, command, machine, ratio, spread, table
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from gradients import VOCABULARY, build, sample, train

WINDOW = 2048  # bergson takes no batch that is longer than the model's window
BERGSON = (sys.executable, "-m", "bergson")
SHAPE = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8}
BERGSON_STEPS = "bergson build + score"
TARGET = 50_000  # bytes

Command = list[str | Path]


def main() -> None:
    parser = parser_of(__doc__, repeats=3)
    parser.add_argument("--kilobytes", type=int, default=300, help="text to score")
    parser.add_argument("--length", type=int, default=512, help="tokens that documents are cut to")
    parser.add_argument("--batch-tokens", type=int, default=WINDOW)
    parser.add_argument("--rank", type=int, default=16)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with corpus(options) as documents, tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        texts = [document["text"] for document in documents.documents]
        tokenizer = train(texts)
        build(lambda: GPTNeoXForCausalLM(config()), tokenizer, folder / "model")
        pool = write(folder / "pool.jsonl", texts, tokenizer, 1000 * options.kilobytes, options.length)
        wanted = [document["text"] for document in documents_of([documents.target])]
        target = write(folder / "target.jsonl", wanted, tokenizer, TARGET, options.length)
        jobs = commands(folder, options.rank, options.batch_tokens)
        if importlib.util.find_spec("bergson") is None:
            del jobs[BERGSON_STEPS]
        fit: Command = [
            *DVSEL,
            "fit",
            "influence",
            "--pool",
            pool,
            "--target",
            target,
            "--quiet",
            "-o",
            folder / "x.fitted",
        ]
        command(*fit, *method(folder, options.rank, options.batch_tokens))
        compare(jobs, pool, options.repeats)


def config() -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=VOCABULARY, max_position_embeddings=WINDOW, bos_token_id=0, eos_token_id=0, pad_token_id=0, **SHAPE
    )


def write(path: Path, texts: Sequence[str], tokenizer: Any, size: int, length: int) -> Path:
    """Documents of about `size` bytes of text, drawn at random, each cut to `length` tokens."""
    with path.open("wb") as file:
        for text in sample(texts, tokenizer, size, length):  # a token is a byte at least
            file.write(orjson.dumps({"text": text}) + b"\n")
            size -= len(text.encode())
            if size <= 0:
                break
    return path


def method(folder: Path, rank: int, batch_tokens: int) -> Command:
    return ["--model", folder / "model", "--rank", str(rank), "--batch-tokens", str(batch_tokens)]


def commands(folder: Path, rank: int, batch_tokens: int) -> dict[str, list[Command]]:
    """The commands of each job, in order."""
    pool, target, query = folder / "pool.jsonl", folder / "target.jsonl", folder / "query"
    score: Command = [
        *DVSEL,
        "score",
        "influence",
        pool,
        "--workers",
        "1",
        "--quiet",
        "--overwrite",
        "-o",
        folder / "scores",
    ]
    ours = [*score, "--target", target, *method(folder, rank, batch_tokens)]
    theirs: Command = [
        "--model",
        folder / "model",
        "--projection_dim",
        str(rank),
        "--token_batch_size",
        str(batch_tokens),
    ]
    theirs = [*theirs, "--overwrite", "--loss_reduction", "mean"]
    return {
        "dvsel, K-FAC": [ours],
        "dvsel, plain gradients": [[*ours, "--preconditioner", "none"]],
        "dvsel, fitted before": [[*score, "--fitted", folder / "x.fitted"]],
        BERGSON_STEPS: [
            [*BERGSON, "build", query, "--dataset", target, "--aggregation", "mean", *theirs],
            [*BERGSON, "score", folder / "index", "--dataset", pool, "--query_path", query, *theirs],
        ],
    }


def compare(jobs: dict[str, list[Command]], pool: Path, repeats: int) -> None:
    """Run all in turn, and print what they cost beside bergson."""

    def run(steps: list[Command]) -> Cost:
        return reduce(add, (command(*step) for step in steps))

    rounds = alternate({name: partial(run, steps) for name, steps in jobs.items()}, repeats)
    below = BERGSON_STEPS if BERGSON_STEPS in jobs else next(iter(jobs))
    documents = pool.read_bytes().count(b"\n")
    print(machine())
    table(
        f"{documents:,} documents, {pool.stat().st_size / 1000:,.0f} KB; {repeats} rounds, min / median / max",
        ["", "wall seconds", "CPU seconds", f"faster than {below}, wall", "CPU"],
        [
            [
                name,
                spread((cost.wall for cost in rounds[name]), 1),
                spread((cost.cpu for cost in rounds[name]), 1),
                spread(ratio(rounds, below, name, "wall")),
                spread(ratio(rounds, below, name, "cpu")),
            ]
            for name in jobs
        ],
    )


if __name__ == "__main__":
    main()
