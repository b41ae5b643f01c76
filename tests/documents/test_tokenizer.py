"""Tokenizers from folders of others: no code of theirs runs, and each kind of damage is one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import language_models
from dvsel.documents.tokens import exact_counts
from dvsel.errors import UserError

pytest.importorskip("transformers")

BACKEND, CONFIG = "tokenizer.json", "tokenizer_config.json"
DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000
TEXTS = ["hello world", "漢字 zygote", "a" * 40 + "!"]
WORDS = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "[UNK]"}
BACKTRACKING = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    language_models.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A tokenizer's folder, to be damaged."""
    return shutil.copytree(saved, tmp_path / "tokenizer")


def content(name: str, text: str | bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def settings(name: str, **values: Any) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))


DAMAGE = {
    "no file": lambda folder: [path.unlink() for path in folder.iterdir()],
    "no backend": lambda folder: (folder / BACKEND).unlink(),
    "backend is a folder": lambda folder: ((folder / BACKEND).unlink(), (folder / BACKEND).mkdir()),
    "truncated": lambda folder: (folder / BACKEND).write_bytes((folder / BACKEND).read_bytes()[:5000]),
    **{f"{name}: {text[:6]!r}": content(name, text) for name in (BACKEND, CONFIG) for text in ("", "[]", "null", DEEP)},
    "no UTF-8": content(BACKEND, b'{"a": "\xff"}'),
    "a model's configuration": content("config.json", "[]"),
    "class": settings(CONFIG, tokenizer_class=3),
    "class of another kind": settings(CONFIG, tokenizer_class="BertTokenizer"),
    "length": settings(CONFIG, model_max_length="long"),
    "length below 0": settings(CONFIG, model_max_length=-1),
    "bos": settings(CONFIG, bos_token=3),
    "added": settings(CONFIG, added_tokens_decoder={"x": 1}),
    "kind of model": settings(BACKEND, model={"type": "Nope"}),
    "no vocabulary": settings(BACKEND, model={"type": "BPE", "vocab": {}, "merges": []}),
    "no unknown word": settings(BACKEND, model=WORDS, pre_tokenizer={"type": "Whitespace"}, post_processor=None),
    "a pattern without an end": settings(BACKEND, pre_tokenizer=BACKTRACKING),
    "vocabulary alone": lambda folder: (
        (folder / BACKEND).unlink(),
        (folder / "vocab.json").write_text("[]"),
        (folder / "merges.txt").write_text("x"),
        settings(CONFIG, tokenizer_class="GPT2Tokenizer")(folder),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_one_line(folder: Path, damage: Callable[[Path], Any]) -> None:
    damage(folder)
    with pytest.raises(
        UserError, match=r"^tokenizer .*tokenizer: .+; give (a folder or a hub name|another one)$"
    ) as said:
        exact_counts(str(folder), TEXTS)
    assert "\n" not in str(said.value)


def test_its_code_is_never_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does anybody ask whether to: a pipe would answer."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (folder / "mine.py").write_text(f"open({str(folder / 'trace')!r}, 'w')\nclass Mine: pass\n")
    settings(CONFIG, tokenizer_class="Mine", auto_map={"AutoTokenizer": ["mine.Mine", None]})(folder)
    with pytest.raises(UserError, match="custom code"):
        exact_counts(str(folder), TEXTS)
    assert not (folder / "trace").exists()
