"""The scorer `datainf`, on a whole model and on an adapter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import corpus
import language_models
from commands import ok
from dvsel.documents.columns import Batch
from dvsel.errors import UserError
from dvsel.score_files.find import SUFFIX
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers.datainf import DataInf, FittedDataInf
from dvsel.scorers.influence import Influence
from dvsel.testing import check_scorer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TEXTS = [text[:200] for text in language_models.TEXTS[:10]]
TARGET = [text[:200] for text in language_models.TEXTS[20:24]]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def adapter(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("peft")
    return language_models.adapt(tmp_path_factory.mktemp("adapters"), model)


def fit(model: str, **options: Any) -> FittedDataInf:
    targets = {"a": [Batch.of(TARGET[:1])], "b": [Batch.of(TARGET[1:])]}
    return DataInf(model=model, precision="fp32", **options).fit([Batch.of(TEXTS)], targets)


def test_a_scorer_as_any_other(model: str) -> None:
    scorer = DataInf(model=model, precision="fp32", batch_tokens=3000, stride=64, layers="*.o_proj")
    fitted = check_scorer(scorer, TEXTS, TARGET)
    assert isinstance(fitted, FittedDataInf)


def test_the_targets_documents_score_1_on_average(model: str, adapter: str) -> None:
    for name in (model, adapter):
        assert fit(name).score(Batch.of(TARGET)).mean() == pytest.approx(1, rel=1e-4)
    groups = fit(model, separate_targets=True).score(Batch.of(TARGET))
    assert groups[0, 0] == pytest.approx(1, rel=1e-4) and groups[1:, 1].mean() == pytest.approx(1, rel=1e-4)


def test_of_an_adapter_each_of_its_matrices_is_a_layer(adapter: str) -> None:
    fitted = fit(adapter)
    assert fitted.report["layers"] == 14
    assert all(".lora_" in name for name in fitted.report["ranks"])
    assert set(fitted.report["ranks"][next(iter(fitted.report["ranks"]))]) == {4}  # whole


def test_it_is_cut_where_asked(model: str) -> None:
    assert fit(model).report["rank"].startswith("16 to 16")
    assert fit(model, rank=2).report["rank"].startswith("2 to 2")
    whole, cut = (fit(model, rank=rank).score(Batch.of(TEXTS)) for rank in (0, 8))
    assert np.corrcoef(whole, cut)[0, 1] > 0.9


def test_much_damping_leaves_the_plain_inner_product(model: str) -> None:
    plain = Influence(model=model, precision="fp32", preconditioner="none", rank=0)
    # the same lambda in all layers is none of the paper's, so a single layer is compared
    only = {"layers": "*.down_proj"}
    found = fit(model, damping=1e9, **only).score(Batch.of(TEXTS))
    expected = Influence(**{**vars(plain), **only}).fit([], {"t": [Batch.of(TARGET)]}).score(Batch.of(TEXTS))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_bad_options_are_refused() -> None:
    assert DataInf().takes_pool
    with pytest.raises(UserError, match="damping 0: out of range"):
        DataInf(damping=0)
    with pytest.raises(UserError, match="factor_documents 0: out of range"):
        DataInf(factor_documents=0)
    with pytest.raises(UserError, match="no model"):
        DataInf().fit([], {"t": [Batch.of(TARGET)]})


def test_from_the_command_line(model: str, tmp_path: Path) -> None:
    pool = corpus.write(tmp_path / "pool.jsonl", corpus.pool()[::20])
    target = corpus.write(tmp_path / "target.jsonl", [{"text": text} for text in TARGET])
    ok("score", "datainf", pool, "--target", target, "--model", model, "--precision", "fp32", "-o", tmp_path / "scores")
    (rows,) = ScoreFile(str(tmp_path / "scores" / ("pool.jsonl" + SUFFIX))).rows()
    assert np.isfinite(rows.score).all() and rows.score.std() > 0


def test_help_imports_no_model() -> None:
    code = "import sys, dvsel.scorers.datainf; sys.exit(bool({'torch', 'transformers', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
