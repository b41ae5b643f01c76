"""Small language models for tests: random weights of real architectures, and a tokenizer trained on real text."""

from __future__ import annotations

import functools
import inspect
import pydoc
import pydoc_data.topics
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvsel.documents.columns import Batch, Column

FAMILIES = ("llama", "gpt2", "gpt_neox", "qwen2", "gemma2")
TEXTS = tuple(pydoc_data.topics.topics.values())

_SPECIAL = {"bos": "<s>", "eos": "</s>"}
_SHAPE = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "tie_word_embeddings": False,
    "initializer_range": 0.3,  # far from uniform predictions, so that an error shows
}
_NO_GROUPS = {"num_key_value_heads": None, "head_dim": None}
_OF_FAMILY: dict[str, dict[str, Any]] = {
    "gemma2": {"final_logit_softcapping": 2.0, "sliding_window": 16, "query_pre_attn_scalar": 8},
    "gpt_neox": _NO_GROUPS,
    "gpt2": _NO_GROUPS | {"intermediate_size": None},
    "opt": _NO_GROUPS | {"intermediate_size": None, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "bert": _NO_GROUPS,
    "roberta": _NO_GROUPS,
}


def build(
    folder: Path,
    family: str = "llama",
    *,
    seed: int = 0,
    hidden: int = 32,
    layers: int = 2,
    window: int = 64,
    special: tuple[str, ...] = ("bos", "eos"),
    task: str = "CausalLM",
    **more: Any,
) -> str:
    """Save a model of random weights and its tokenizer into `folder`, whose path it returns.

    family: an architecture as transformers names it. window: the positions that it takes. special: which of the
    tokens bos and eos the tokenizer has. task: as in the names of transformers' classes. more: further settings of the
    configuration.
    """
    import torch
    import transformers

    made = tokenizer(special)
    settings = _SHAPE | _OF_FAMILY.get(family, {}) | more
    config = transformers.AutoConfig.for_model(
        family,
        vocab_size=len(made) + 3,  # as many models have: more rows than tokens
        hidden_size=hidden,
        num_hidden_layers=layers,
        max_position_embeddings=window,
        bos_token_id=made.bos_token_id,
        eos_token_id=made.eos_token_id,
        pad_token_id=settings.pop("pad_token_id", None),
        **{name: value for name, value in settings.items() if value is not None},
    )
    torch.manual_seed(seed)
    model = getattr(transformers, f"AutoModelFor{task}").from_config(config)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return str(folder)


def adapt(folder: Path, base: str, *, task: str = "CAUSAL_LM", seed: int = 0, **settings: Any) -> str:
    """Save a LoRA adapter of random weights for the model at `base` into `folder`, whose path it returns.

    task: as PEFT names it. settings: further ones of the adapter's configuration.
    """
    import peft
    import torch
    import transformers

    kind = {"CAUSAL_LM": "CausalLM", "SEQ_CLS": "SequenceClassification"}[task]
    more = {"num_labels": settings.pop("num_labels", 3)} if task == "SEQ_CLS" else {}
    torch.manual_seed(seed)
    network = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(base, **more)
    options: dict[str, Any] = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.5, "target_modules": "all-linear"} | settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(network, peft.LoraConfig(task_type=task, **options))
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)  # the second factor begins at 0
        adapted.save_pretrained(str(folder))
    return str(folder)


@functools.cache
def tokenizer(special: tuple[str, ...] = ("bos", "eos"), vocabulary: int = 600) -> Any:
    """A byte-level BPE trained on this Python's documentation and source; adds bos by itself where it has one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    names = {name: _SPECIAL[name] for name in special}
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(names.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([*TEXTS[:20], inspect.getsource(pydoc)[:50_000]], trainer)
    if "bos" in names:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{names['bos']} $A", special_tokens=[(names["bos"], raw.token_to_id(names["bos"]))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=raw, **{f"{name}_token": token for name, token in names.items()})


def labelled(texts: Sequence[str], labels: Sequence[str]) -> Batch:
    """Documents with a field `label`."""
    return Batch(Batch.of(texts).text, {"label": Column.of([label.encode() for label in labels])})
