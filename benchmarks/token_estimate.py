"""Where the built-in token estimate comes from, and how far off it is.

Trains a byte-level BPE of 65,536 tokens (GPT-4's pre-tokenisation) on half of the documents of the files named,
fits the estimate's weights to its exact counts of a quarter, and measures the error on the last quarter: of the
total, of a document, and of each domain's total, beside the usual rule of four bytes a token.

    python benchmarks/token_estimate.py pool/*.jsonl.zst
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections import defaultdict

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dvsel.documents.columns import Column
from dvsel.documents.tokens import FEATURES, count_features, errors, exact_counts, non_negative_fit
from dvsel.shards.expand import expand
from dvsel.shards.lines import LineReader

VOCABULARY = 1 << 16
A_DOMAIN = 3000  # documents
TRAINING_BYTES = 80_000_000
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def main() -> None:
    documents = read(sys.argv[1:])
    random.Random(0).shuffle(documents)
    half, quarter = len(documents) // 2, len(documents) // 4
    with tempfile.TemporaryDirectory() as folder:
        train([text for _, text in documents[:half]]).save_pretrained(folder)
        fitting, testing = documents[half : half + quarter], documents[half + quarter :]
        weights = non_negative_fit(counts(fitting), exact(folder, fitting))
        print("weights", dict(zip(FEATURES, weights, strict=True)))
        report("all", testing, folder, weights)
        by_domain = defaultdict(list)
        for document in testing:
            by_domain[document[0]].append(document)
        for domain, members in sorted(by_domain.items()):
            report(domain, members, folder, weights)


def read(paths: list[str]) -> list[tuple[str, str]]:
    by_domain = defaultdict(list)
    for shard in expand(paths):
        with LineReader(shard) as reader:
            for lines in reader:
                for row in range(len(lines)):
                    document = json.loads(lines[row])
                    by_domain[document["domain"]].append((document["domain"], document["text"][:20_000]))
    generator = random.Random(0)
    return [
        document
        for _, members in sorted(by_domain.items())
        for document in generator.sample(members, min(len(members), A_DOMAIN))
    ]


def train(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    ends = np.cumsum([len(text) for text in texts])
    some = texts[: int(np.searchsorted(ends, TRAINING_BYTES))]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(some, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def counts(documents: list[tuple[str, str]]) -> np.ndarray:
    return count_features(Column.of([text.encode() for _, text in documents]))


def exact(folder: str, documents: list[tuple[str, str]]) -> np.ndarray:
    counts = exact_counts(folder, [text for _, text in documents])
    return np.maximum(counts, 1, dtype=np.float64)


def report(name: str, documents: list[tuple[str, str]], folder: str, weights: tuple[float, ...]) -> None:
    truth = exact(folder, documents)
    total, document = errors(counts(documents), truth, weights)
    four = sum(len(text.encode()) for _, text in documents) / 4 / truth.sum() - 1
    ours = f"total {total:+6.1%}, a document {document:5.1%}"
    print(f"{name:14} {len(documents):6,} documents: {ours}; four bytes a token {four:+6.1%}")


if __name__ == "__main__":
    main()
