"""YAML files: what is read, and what is refused before it costs time, memory or stack."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from commands import failure
from dvsel.errors import UserError
from dvsel.storage.yaml_file import read, read_nodes

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "nested lists": ("[" * 100_000, "more than 32 levels deep"),
    "nested mappings": ("{a: " * 100_000, "more than 32 levels deep"),
    "nested blocks": ("- " * 100_000, "more than 32 levels deep"),
    "a billion laughs": (LAUGHS, "line 2: an alias (`*name`); write out what it stands for"),
    "merges": ("a: &a {b: 1}\nc: {<<: *a}\n", "line 2: an alias"),
    "a list in itself": ("&a [*a]\n", "an alias"),
    "a long number": ("a: " + "9" * 5000 + "\n", "is not valid YAML"),
    "no date": ("a: 2020-13-45\n", "is not valid YAML (month must be in 1..12); fix it there"),
    "an object of Python's": ("!!python/object/apply:os.system ['touch trace']\n", "is not valid YAML"),
    "a list as a key": ("? [a]\n: b\n", "is not valid YAML"),
    "binary": (bytes(range(256)) * 9, "is not UTF-8 text; save it as UTF-8"),
    "UTF-16": ("a: b".encode("utf-16"), "is not UTF-8 text"),
    "control characters": ("a: \x00\x01", "is not valid YAML"),
    "large": (b"# \n" * 6_000_000, "is larger than 16 MB"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    content, says = REFUSED[name]
    file = tmp_path / "f.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.monotonic()
    with pytest.raises(UserError) as refused:
        read(str(file))
    assert says in str(refused.value) and "\n" not in str(refused.value) and str(refused.value).startswith(str(file))
    assert len(str(refused.value)) < 600 and time.monotonic() - began < 10


def test_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("\ufeffa: [1, 0.5, no, é]\n", encoding="utf-8")
    assert read(str(tmp_path / "f.yaml")) == {"a": [1, 0.5, False, "é"]}
    (domain, _), *_ = read_nodes(str(tmp_path / "f.yaml")).value  # type: ignore[union-attr]
    assert (domain.value, domain.start_mark.line) == ("a", 0)


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (("run", "FILE"), "FILE"),
        (("select", "scores", "--budget", "5%", "-o", "x", "--quota", "FILE"), "FILE"),
        (("losses", "pool", "--ladder", "FILE", "-o", "x"), "FILE"),
    ],
)
@pytest.mark.parametrize("content", [b"\x93NUMPY\x01\x00", b"[" * 5000, LAUGHS.encode(), None])
def test_files_of_all_commands(words: tuple[str, ...], place: str, content: bytes | None, tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """None: a folder."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "f.yaml"
    file.mkdir() if content is None else file.write_bytes(content)
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "a.jsonl").write_text('{"text": "a"}\n')
    assert "f.yaml" in failure(*(str(file) if word == place else word for word in words))
