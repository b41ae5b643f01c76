"""Datasets of several splits ask which one is meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dvsel.errors import UserError
from dvsel.shards import expand as expansion
from dvsel.shards.expand import expand
from dvsel.shards.splits import check_hub
from dvsel.storage import places

datasets = pytest.importorskip("datasets")


def saved(folder: Path, *splits: str) -> Path:
    one = datasets.Dataset.from_list([{"text": "a"}])
    datasets.DatasetDict(dict.fromkeys(splits, one)).save_to_disk(str(folder))
    return folder


def test_a_dict_of_datasets_asks_which_split(tmp_path: Path) -> None:
    folder = saved(tmp_path / "dict", "train", "test")
    with pytest.raises(UserError) as refused:
        expand([str(folder)])
    assert str(refused.value) == (
        f"{folder}: holds several splits ('train', 'test'); name those that you want, such as {folder}/train"
    )
    assert [shard.format for shard in expand([f"{folder}/train"])] == ["arrow"]
    assert len(expand([f"{folder}/train", f"{folder}/test"])) == len(expand([f"{folder}/*"])) == 2


def test_one_split_is_no_question(tmp_path: Path) -> None:
    assert len(expand([str(saved(tmp_path / "dict", "train"))])) == 1


def test_a_dict_below_a_folder_asks_too(tmp_path: Path) -> None:
    saved(tmp_path / "data" / "dict", "train", "test")
    with pytest.raises(UserError, match=rf"{tmp_path}/data/dict: holds several splits"):
        expand([str(tmp_path / "data")])


@pytest.mark.parametrize("content", ["[1]", '{"splits": 5}', '{"splits": [1, "gone", "other"]}', "{"])
def test_another_file_of_that_name_says_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text(content)
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a"}))
    assert [shard.name for shard in expand([str(tmp_path)])] == ["a.jsonl"]


# --- The hub. ---


@pytest.mark.parametrize(
    ("names", "splits", "such_as"),
    [
        (("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"),
         "'train', 'test'", "data/train-*"),
        (("data/train_sft-00000-of-00001.parquet", "data/test_sft-00000-of-00001.parquet"),
         "'train_sft', 'test_sft'", "data/train_sft-00000-of-00001.parquet"),
        (("train.jsonl", "dev.jsonl"), "'train', 'validation'", "train.jsonl"),
        (("en/training/a.jsonl.gz", "en/eval/a.jsonl.gz"), "'train', 'test'", "en/training/a.jsonl.gz"),
    ],
)  # fmt: skip
def test_files_of_several_splits(names: tuple[str, ...], splits: str, such_as: str) -> None:
    with pytest.raises(UserError) as refused:
        check_hub("hf://datasets/o/n", names)
    assert f"holds several splits ({splits});" in str(refused.value)
    assert str(refused.value).endswith(f"such as hf://datasets/o/n/{such_as}")


@pytest.mark.parametrize(
    "names",
    [
        ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"),
        ("en/a.jsonl", "fr/a.jsonl"),
        ("trains.jsonl", "contest.jsonl", "latest/a.jsonl"),
        ("train.jsonl", "part-2.jsonl"),
        (),
    ],
)
def test_files_of_one_split_or_none(names: tuple[str, ...]) -> None:
    check_hub("hf://datasets/o/n", names)


def test_a_dataset_of_the_hub_asks_and_a_glob_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    home, was = uuid4().hex, places.filesystem

    def filesystem(url: str) -> tuple[Any, str]:
        return was(url.replace("hf://datasets", f"memory://{home}"))

    monkeypatch.setattr(places, "filesystem", filesystem)
    monkeypatch.setattr(expansion, "filesystem", filesystem)
    for split in ("train", "test"):
        with places.atomic_writer(f"memory://{home}/o/n/{split}.jsonl") as file:
            file.write(b'{"text": "a"}\n')
    with pytest.raises(UserError, match="holds several splits"):
        expand(["hf://datasets/o/n"])
    assert [shard.name for shard in expand(["hf://datasets/o/n/train.jsonl"])] == ["train.jsonl"]
    places.remove(f"memory://{home}")
