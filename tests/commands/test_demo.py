"""The pool that the demo makes from this Python installation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zstandard

from dvsel.commands.demo import build

Built = tuple[list[Path], Path]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("demo"))


def documents(path: Path) -> list[dict[str, str]]:
    content = path.read_bytes()
    if path.suffix == ".zst":
        content = zstandard.decompress(content)
    return [json.loads(line) for line in content.decode().splitlines() if line]


def test_it_is_a_pool_of_four_domains_and_a_target(built: Built) -> None:
    shards, target = built
    assert [shard.name for shard in shards] == [
        f"{name}.jsonl.zst" for name in ("documentation", "docstrings", "sources", "licences")
    ]
    assert len(documents(target)) > 20
    for shard in shards:
        found = documents(shard)
        assert len(found) >= (1 if "licences" in shard.name else 100)
        assert {document["domain"] for document in found} == {shard.name.partition(".")[0]}


def test_documents_have_an_id_of_their_own_and_text(built: Built) -> None:
    shards, target = built
    found = [document for path in [*shards, target] for document in documents(path)]
    assert len({document["id"] for document in found}) == len(found)
    assert all(document["text"] for document in found)
    assert max(len(document["text"]) for document in documents(shards[2])) <= 4000


def test_the_pool_lacks_the_target(built: Built) -> None:
    shards, target = built
    texts = {document["text"] for shard in shards for document in documents(shard)}
    assert not [document for document in documents(target) if document["text"] in texts]


def test_licences_are_there_once(built: Built) -> None:
    texts = [document["text"] for document in documents(built[0][3])]
    whole = "".join(texts)
    assert "PYTHON SOFTWARE FOUNDATION" in whole.upper() or len(texts) > 1


def test_the_same_installation_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvsel.commands.demo._SOURCES", 20)
    made = [build(tmp_path / name) for name in ("one", "two")]
    one, two = ([path.read_bytes() for path in [*shards, target]] for shards, target in made)
    assert one == two


def test_odd_docstrings_are_text_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A docstring may hold half of a surrogate pair, which no UTF-8 can."""
    source = '"""Half a pair: \\ud800."""\n'
    monkeypatch.setattr("dvsel.commands.demo._standard_library", lambda: iter([("odd.py", source)]))
    shards, _ = build(tmp_path)
    (document,) = documents(shards[1])
    assert document["text"].startswith("Half a pair: ")
