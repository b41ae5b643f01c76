"""The ground truth of `lds.py`: what training on a document really does to a loss.

A small Llama (4 layers of 128, a byte-level BPE of 2,048 trained on the same text) is trained for two epochs on 10,000
documents of five domains. From there it is trained again and again, each time for one epoch on a random half of 1,000
other documents, the candidates, in a fixed order: batches have 50 slots, and a document that is left out leaves its
slot empty. Second moments of AdamW begin as those of the training data. Then 50 queries' mean token losses are taken.

Everything has 127 tokens and a start token before them, and is kept in a folder: `model/` (with `optimizer.pt`, the
state that retrainings begin with), `documents.json`, and one file a retraining, so that the work can be broken off and
gone on with, and shared between processes.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import fcntl
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from corpora import documents_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

DATA = Path(__file__).parents[2] / "shared" / "data" / "open"
START = "<s>"
_SLOTS = 50
_TRAINED_TOKENIZER_ON = 2000  # documents


@dataclass(frozen=True)
class Settings:
    """What the truth depends on; another value is another truth."""

    domains: tuple[str, ...] = ("imdb_reviews", "acl_abstracts", "dc_code", "reuters21578", "sgd_dialogue")
    candidates: int = 200  # of each domain
    queries: int = 10  # of each domain
    pretraining: int = 2000  # of each domain
    tokens: int = 127
    vocabulary: int = 2048
    width: int = 128
    layers: int = 4
    epochs: int = 2
    rate: float = 2e-3  # of the pretraining, at its peak
    retraining_rate: float = 2e-4
    seed: int = 0

    @property
    def name(self) -> str:
        """A name for the folder."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self)).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Texts:
    """Documents of all domains, domain after domain."""

    pretraining: list[str]
    candidates: list[str]
    queries: list[str]


@dataclass(frozen=True)
class Truth:
    """What is known for certain.

    kept: bool (retrainings, candidates). losses: float64 (retrainings, queries), mean nats a token after each
    retraining. before: float64 (queries,), before any.
    """

    settings: Settings
    folder: Path
    texts: Texts
    kept: npt.NDArray[np.bool_]
    losses: npt.NDArray[np.float64]
    before: npt.NDArray[np.float64]

    @property
    def model(self) -> str:
        return str(self.folder / "model")

    @property
    def query_groups(self) -> list[range]:
        """The places of each domain's queries."""
        size = self.settings.queries
        return [range(first, first + size) for first in range(0, len(self.texts.queries), size)]


def truth(settings: Settings, data: Path, cache: Path, retrainings: int) -> Truth:
    """The ground truth, made where it is not in the cache yet."""
    folder, texts = prepared(settings, data, cache)
    before = _retrain_all(settings, folder, texts, retrainings)
    runs = [np.load(_run(folder, number)) for number in range(retrainings)]
    kept, losses = (np.stack([run[name] for run in runs]) for name in ("kept", "losses"))
    return Truth(settings, folder, texts, kept, losses, before)


def prepared(settings: Settings, data: Path, cache: Path) -> tuple[Path, Texts]:
    """A folder with the trained model in `model/`, and its documents; made where they are not there yet."""
    folder = cache / settings.name
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "model.lock", wait=True):
        if not (folder / "model" / "optimizer.pt").exists():
            _prepare(settings, data, folder)
    return folder, Texts(**json.loads((folder / "documents.json").read_text()))


def _prepare(settings: Settings, data: Path, folder: Path) -> None:
    """Documents, tokenizer and the trained model."""
    raw = {name: [row["text"] for row in documents_of([str(shard(data, f"pool/{name}"))])] for name in settings.domains}
    tokenizer = _train_tokenizer(settings, raw)
    texts = _draw(settings, raw, tokenizer)
    (folder / "documents.json").write_text(json.dumps(dataclasses.asdict(texts)))
    tokenizer.save_pretrained(folder / "model")
    ids = encode(tokenizer, texts.pretraining)
    model = _pretrain(settings, ids)
    model.save_pretrained(folder / "model")
    torch.save(warm_state(model, ids, settings), folder / "model" / "optimizer.pt")


def shard(data: Path, name: str) -> Path:
    """A JSONL file in the folder, compressed or not; name: its path without what comes after the last part."""
    found = sorted(data.glob(f"{name}.jsonl*"))
    if not found:
        raise SystemExit(f"{data}: holds no {name}.jsonl; name a folder that does with --data")
    return found[0]


def _train_tokenizer(settings: Settings, raw: dict[str, list[str]]) -> Any:
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    some = [text[:2000] for texts in raw.values() for text in texts[:: max(len(texts) // _TRAINED_TOKENIZER_ON, 1)]]
    found.train_from_iterator(some, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=found, bos_token=START, eos_token=START)


def _draw(settings: Settings, raw: dict[str, list[str]], tokenizer: Any) -> Texts:
    """Documents at random, each cut to the tokens that are wanted, in three parts without overlap."""
    random = np.random.default_rng(settings.seed)
    sizes = [settings.pretraining, settings.candidates, settings.queries]
    parts: list[list[str]] = [[], [], []]
    for domain, texts in raw.items():
        order = random.permutation(len(texts)).tolist()
        found = _cut((texts[row] for row in order), tokenizer, settings.tokens, sum(sizes))
        if len(found) < sum(sizes):
            raise SystemExit(f"{domain}: {len(found)} documents of {settings.tokens} tokens; {sum(sizes)} are needed")
        for part, size in zip(parts, sizes, strict=True):
            part += found[:size]
            del found[:size]
    return Texts(*parts)


def _cut(texts: Iterator[str], tokenizer: Any, tokens: int, wanted: int) -> list[str]:
    """The first `wanted` different texts that have so many tokens, cut."""
    found: dict[str, None] = {}
    for text in texts:
        piece = cut(text, tokenizer, tokens)
        if piece:
            found[piece] = None
        if len(found) == wanted:
            break
    return list(found)


def cut(text: str, tokenizer: Any, tokens: int) -> str:
    """The text to its first `tokens` tokens; "" where it has fewer, or where the cut text has others."""
    ids = tokenizer(text[: 16 * tokens], add_special_tokens=False)["input_ids"][:tokens]
    piece: str = tokenizer.decode(ids)
    same = tokenizer(piece, add_special_tokens=False)["input_ids"] == ids
    return piece if same and len(ids) == tokens else ""


def encode(tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """int64 (texts, 1 + tokens): the start token and the text's."""
    return torch.tensor([[tokenizer.bos_token_id, *row] for row in tokenizer(list(texts))["input_ids"]])


def new_model(settings: Settings) -> Any:
    """The model with random weights."""
    torch.manual_seed(settings.seed)
    config = LlamaConfig(
        vocab_size=settings.vocabulary,
        hidden_size=settings.width,
        intermediate_size=3 * settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


def losses(model: Any, ids: torch.Tensor, answer: int = 0) -> torch.Tensor:
    """Mean token loss of each row (rows,), of its last `answer` tokens where that is not 0."""
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits[:, -answer:]
    labels = ids[:, 1:][:, -answer:]
    found = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return found.view(len(ids), -1).mean(1)


def _pretrain(settings: Settings, ids: torch.Tensor) -> Any:
    model = new_model(settings)
    random = np.random.default_rng(settings.seed)
    batches = [
        rows
        for _ in range(settings.epochs)
        for rows in np.array_split(random.permutation(len(ids)), len(ids) // _SLOTS)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.rate, betas=(0.9, 0.99), weight_decay=0.01)
    for step, rows in enumerate(batches):
        optimizer.param_groups[0]["lr"] = settings.rate * min((step + 1) / 40, 1.05 - step / len(batches))
        loss = losses(model, ids[rows]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(f"pretraining, step {step} of {len(batches)}: loss {loss.item():.3f}", flush=True)
    return model.eval()


def warm_state(model: Any, ids: torch.Tensor, settings: Settings, batches: int = 100) -> Any:
    """The state of an AdamW that knows second moments, of batches of half the slots, and no first ones."""
    optimizer = _retrainer(model, settings)
    random = np.random.default_rng(settings.seed + 1)
    squares = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for _ in range(batches):
        losses(model, ids[random.choice(len(ids), _SLOTS // 2, replace=False)]).mean().backward()  # type: ignore[no-untyped-call]
        for square, parameter in zip(squares, model.parameters(), strict=True):
            square.addcmul_(parameter.grad, parameter.grad, value=1 / batches)
        model.zero_grad()
    for square, parameter in zip(squares, model.parameters(), strict=True):
        optimizer.state[parameter] = {
            "step": torch.tensor(1e4),  # so that no bias is corrected
            "exp_avg": torch.zeros_like(square),
            "exp_avg_sq": square,
        }
    return optimizer.state_dict()


def _retrainer(model: Any, settings: Settings) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=settings.retraining_rate, weight_decay=0.0)


class Retraining:
    """Training from the checkpoint on some of the documents, as often as wanted."""

    def __init__(self, settings: Settings, model: Path, documents: Sequence[str]) -> None:
        self.settings = settings
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
        self.ids = encode(self.tokenizer, documents)
        self.model = LlamaForCausalLM.from_pretrained(model).eval()
        self._weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        self._state = torch.load(model / "optimizer.pt")
        self.order = np.random.default_rng(settings.seed + 2).permutation(len(documents))

    def train(self, kept: npt.NDArray[np.bool_], epochs: int = 1) -> Any:
        """The model after so many epochs on the kept documents."""
        self.model.load_state_dict(self._weights)
        optimizer = _retrainer(self.model, self.settings)
        optimizer.load_state_dict(copy.deepcopy(self._state))  # which the optimizer would take over
        for _ in range(epochs):
            for first in range(0, len(self.order), _SLOTS):
                rows = self.order[first : first + _SLOTS]
                (losses(self.model, self.ids[rows[kept[rows]]]).sum() / (_SLOTS // 2)).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
        return self.model


@torch.no_grad()
def query_losses(model: Any, ids: torch.Tensor) -> npt.NDArray[np.float64]:
    """float64 (queries,)."""
    return losses(model, ids).double().numpy()


def _retrain_all(settings: Settings, folder: Path, texts: Texts, wanted: int) -> npt.NDArray[np.float64]:
    """Do those retrainings that are missing and that no other process is at; the losses before any are given."""
    (folder / "retrainings").mkdir(exist_ok=True)
    retraining = Retraining(settings, folder / "model", texts.candidates)
    queries = encode(retraining.tokenizer, texts.queries)
    before = query_losses(retraining.model, queries)
    for wait in (False, True):  # then for those that others are at
        for number in range(wanted):
            with _locked(_run(folder, number).with_suffix(".lock"), wait) as mine:
                if mine and not _run(folder, number).exists():
                    _retrain(retraining, queries, number, _run(folder, number))
    return before


def _retrain(retraining: Retraining, queries: torch.Tensor, number: int, path: Path) -> None:
    """One retraining, on the half that the number stands for."""
    begun = time.process_time()
    documents = len(retraining.ids)
    half = np.random.default_rng([retraining.settings.seed, number]).permutation(documents)[: documents // 2]
    kept = np.zeros(documents, bool)
    kept[half] = True
    found = query_losses(retraining.train(kept), queries)
    seconds = time.process_time() - begun
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(file, kept=kept, losses=found, seconds=seconds)
    unfinished.rename(path)
    print(f"retraining {number}: mean query loss {found.mean():.4f}, {seconds:.1f} CPU s", flush=True)


def _run(folder: Path, number: int) -> Path:
    return folder / "retrainings" / f"{number:04}.npz"


@contextlib.contextmanager
def _locked(path: Path, wait: bool) -> Iterator[bool]:
    """Whether this process alone has the file; a lock ends with its process."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
