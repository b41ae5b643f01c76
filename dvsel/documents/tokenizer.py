"""Tokenizers of transformers, from a folder or the hub: code that comes with one is never run, and whatever goes wrong
in one is a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dvsel.errors import explained

ANY_LENGTH = 1 << 60
"""For `model_max_length`: long texts are our business, and no warning."""


def load(place: str, what: str, remedy: str) -> Any:
    """The tokenizer, tried out.

    what, remedy: the beginning and the end of the UserError for one that cannot be used.
    """
    with explained(what, remedy):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        if not tokenizer("a", add_special_tokens=False)["input_ids"]:
            raise ValueError("it finds no token in a text")
        if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes of a BERT without one
            raise ValueError("it has no vocabulary")
        if not tokenizer.model_max_length > 0:
            raise ValueError(f"its model_max_length is {tokenizer.model_max_length}")
    return tokenizer


def cut(tokenizer: Any, texts: Sequence[str], what: str, longest: int | None = None) -> list[list[int]]:
    """Tokens of each text; longest: with those that the tokenizer adds by itself, cut to so many in all.

    what: the beginning of the UserError for a tokenizer that fails at a text, as one without a token for the unknown.
    """
    if not texts:
        return []  # which some tokenizers refuse
    with explained(f"{what}: it fails at a text", "give another one"):
        made: list[list[int]] = tokenizer(
            list(texts),
            add_special_tokens=longest is not None,
            truncation=longest is not None,
            max_length=longest,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
    return made
