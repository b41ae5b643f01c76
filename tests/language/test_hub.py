"""Models of the hub, as its client keeps what it downloaded: read without a network, and known by their commits."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import language_models
from commands import environment

pytest.importorskip("torch")
pytest.importorskip("peft")

FIRST, SECOND = "0123456789abcdef0123456789abcdef01234567", "fedcba9876543210fedcba9876543210fedcba98"

# For each model that is named: its digest, and the place of its adapter.
LOAD = """
import sys
from dvsel.language.models import load
for name in sys.argv[1:]:
    card = load(name).card
    print(card.digest.hex(), card.adapter)
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which owner/base and an adapter of it, owner/adapter, were downloaded."""
    folder = tmp_path_factory.mktemp("hub")
    base = language_models.build(folder / "base")
    adapter = Path(language_models.adapt(folder / "adapter", base))
    settings = adapter / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"base_model_name_or_path": "owner/base"}))
    for name in ("base", "adapter"):
        place = folder / "home" / "hub" / f"models--owner--{name}"
        shutil.copytree(folder / name, place / "snapshots" / FIRST)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(FIRST)
    return folder / "home"


@pytest.fixture(scope="module")
def before(hub: Path) -> list[str]:
    return loaded(hub, "owner/base", "owner/adapter")


def loaded(hub: Path, *names: str) -> list[str]:
    environ = environment(HF_HOME=str(hub), HF_HUB_OFFLINE="1")
    ended = subprocess.run([sys.executable, "-c", LOAD, *names], env=environ, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split("\n")[:-1]


@pytest.mark.parametrize("moved", ["base", "adapter"])
def test_a_model_is_known_by_its_commit_and_that_of_its_base(
    moved: str, before: list[str], hub: Path, tmp_path: Path
) -> None:
    assert before[0].endswith(" ") and before[1].endswith(" owner/adapter")
    other = shutil.copytree(hub, tmp_path / "home")
    place = other / "hub" / f"models--owner--{moved}"
    (place / "snapshots" / FIRST).rename(place / "snapshots" / SECOND)
    (place / "refs" / "main").write_text(SECOND)
    after = loaded(other, "owner/base", "owner/adapter")
    assert (after[0] == before[0], after[1] == before[1]) == (moved == "adapter", False)
