"""Token losses: dvsel beside a plain transformers loop over length-sorted batches of as many tokens, on one core.

    python benchmarks/perplexity.py [--pool FILE ...] [--kilobytes 200] [--batch-tokens 8192] [--repeats 3]

The loop is what one writes by hand: tokenise all documents, sort them by length, fill batches up to the budget,
`model(**batch).logits`, cross entropy over the real tokens. Both score the same documents with the same small Llama
(random weights, a vocabulary of 16,384 trained here), cut to its window of 1,024 tokens since the loop has no windows.
Runs alternate and CPU time is taken; the losses of both are compared.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpora import corpus, parser_of
from measure import alternate, here, machine, ratio, spread, table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dvsel.language.models import load
from dvsel.language.token_losses import LossMeter
from dvsel.language.windows import cut

VOCABULARY = 16_384
WINDOW = 1024
SHAPE = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 8}


def main() -> None:
    parser = parser_of(__doc__, repeats=3)
    parser.add_argument("--kilobytes", type=int, default=200, help="text to score")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with corpus(options) as documents, tempfile.TemporaryDirectory() as folder:
        texts = [document["text"] for document in documents.documents]
        build(texts, Path(folder))
        compare(folder, sample(texts, options.kilobytes * 1000, folder), options.batch_tokens, options.repeats)


def build(texts: Sequence[str], folder: Path) -> None:
    """A small Llama with random weights, and a byte-level BPE trained on the texts."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<s>"], show_progress=False)
    raw.train_from_iterator(texts, trainer)
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", pad_token="<s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=WINDOW, bos_token_id=0, **SHAPE)
    LlamaForCausalLM(config).save_pretrained(folder)


def sample(texts: Sequence[str], size: int, folder: str) -> list[str]:
    """About `size` characters of documents drawn at random, each cut to what fits the window."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chosen: list[str] = []
    for text in random.Random(0).sample(texts, len(texts)):
        if size <= 0:
            break
        ids = tokenizer(text[: 8 * WINDOW], add_special_tokens=False)["input_ids"][: WINDOW - 32]
        chosen.append(tokenizer.decode(ids))  # whose tokens may be a few more
        size -= len(chosen[-1])
    return chosen


class Plain:
    """The loop by hand."""

    def __init__(self, folder: str, batch_tokens: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.batch_tokens = batch_tokens

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Rows of each batch, the longest documents first."""
        found: list[list[int]] = []
        for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
            if not found or (len(found[-1]) + 1) * lengths[found[-1][0]] > self.batch_tokens:
                found.append([])
            found[-1].append(row)
        return found

    @torch.inference_mode()
    def losses(self, texts: Sequence[str]) -> list[Any]:
        """Losses of each text's tokens."""
        ids = self.tokenizer(list(texts))["input_ids"]
        losses: list[Any] = [None] * len(texts)
        for rows in self.batches([len(one) for one in ids]):
            batch = self.tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt")
            batch = batch.to(self.model.device)
            logits = self.model(**batch).logits[:, :-1]
            wanted = batch["input_ids"][:, 1:]
            found = cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view(wanted.shape)
            for row, one in zip(rows, found.float().cpu(), strict=True):
                losses[row] = one[: len(ids[row]) - 1].numpy()
        return losses


def waste(groups: Sequence[Sequence[int]]) -> float:
    """The share of padding in batches of rows of these lengths."""
    return 1 - sum(map(sum, groups)) / sum(max(lengths) * len(lengths) for lengths in groups)


def batches_of(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """The lengths of the rows of each of dvsel's batches."""
    falling = np.sort(np.array(lengths))[::-1]
    found, first = [], 0
    while first < len(falling):
        last = cut(falling, first, batch_tokens)
        found.append(falling[first:last].tolist())
        first = last
    return found


def compare(folder: str, texts: list[str], batch_tokens: int, repeats: int) -> None:
    """Run both in turn, and print rates, their ratio and the padding."""
    plain, ours = Plain(folder, batch_tokens), LossMeter(load(folder, "fp32"), batch_tokens=batch_tokens)
    difference = max(
        float(np.abs(one - other).max())
        for one, other in zip(plain.losses(texts), ours.token_losses(texts), strict=True)
    )
    jobs = {
        "plain loop": lambda: here(lambda: plain.losses(texts)),
        "dvsel": lambda: here(lambda: ours.token_losses(texts)),
    }
    rounds = alternate(jobs, repeats)
    fed = {"plain loop": [len(ids) for ids in plain.tokenizer(texts)["input_ids"]]}
    fed["dvsel"] = [length - 1 for length in fed["plain loop"]]  # the last token predicts nothing
    padding = {
        "plain loop": [[fed["plain loop"][row] for row in rows] for rows in plain.batches(fed["plain loop"])],
        "dvsel": batches_of(fed["dvsel"], batch_tokens),
    }
    tokens = sum(fed["dvsel"])
    print(machine())
    table(
        f"{len(texts)} documents, {tokens:,} tokens, batches of {batch_tokens:,}; losses differ by {difference:.0e} "
        f"at most; {repeats} rounds, min / median / max",
        ["", "tokens a second of CPU time", "times the loop, CPU", "times the loop, wall", "batches", "padding"],
        [
            [
                name,
                spread((tokens / cost.cpu for cost in rounds[name]), 0),
                spread(ratio(rounds, "plain loop", name, "cpu")),
                spread(ratio(rounds, "plain loop", name, "wall")),
                str(len(padding[name])),
                f"{waste(padding[name]):.1%}",
            ]
            for name in jobs
        ],
    )


if __name__ == "__main__":
    main()
