"""The scorer `self-influence`: fitted, saved and run, from batches and from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import corpus
import language_models
from commands import failure, ok
from dvsel.documents.columns import Batch
from dvsel.errors import Notice, UserError
from dvsel.score_files.find import SUFFIX
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers.self_influence import SelfInfluence
from dvsel.testing import check_scorer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TEXTS = [text[:200] for text in language_models.TEXTS[:10]]
LONG = language_models.TEXTS[7][:900]


pytestmark = pytest.mark.usefixtures("one_thread")


def score(texts: list[str], model: str, **options: Any) -> npt.NDArray[np.float32]:
    scorer = SelfInfluence(model=model, precision="fp32", **options)
    return scorer.fit([Batch.of(TEXTS)] if scorer.takes_pool else [], {}).score(Batch.of(texts))


@pytest.mark.parametrize("options", [{"preconditioner": "ekfac", "layers": "*.mlp.*"}, {"packing": True}])
def test_a_scorer_as_any_other(model: str, options: dict[str, Any]) -> None:
    check_scorer(SelfInfluence(model=model, precision="fp32", batch_tokens=3000, stride=64, **options), TEXTS)


@pytest.mark.parametrize("preconditioner", ["kfac", "ekfac"])
def test_the_score_is_the_inner_product_of_a_gradient_with_its_own_direction(model: str, preconditioner: str) -> None:
    """<G, H^-1 G>, where H^-1 G is what influence compares with when the document is its own target."""
    from dvsel.gradients.gradient_pass import GradientMeter
    from dvsel.gradients.layers import choose
    from dvsel.gradients.low_rank import Cut
    from dvsel.gradients.target_gradient import Curvature, find, mean_gradient
    from dvsel.language import Documents
    from dvsel.language.models import load

    loaded = load(model, "fp32")
    meter = GradientMeter(loaded, choose(loaded, "all"))
    texts = [*TEXTS[:4], LONG]
    queries = [mean_gradient(meter, Documents([text]), "mean", "here") for text in texts]
    expected = find(meter, queries, Curvature(preconditioner), Documents(TEXTS), Cut(0)).own_scores()
    np.testing.assert_allclose(score(texts, model, preconditioner=preconditioner), expected, rtol=1e-4)


def test_without_a_curvature_it_is_the_squared_norm(model: str) -> None:
    plain = score(TEXTS, model, preconditioner="none")
    assert (plain > 0).all()
    damped = score(TEXTS, model, damping=1e6)  # beside which the curvature is nothing
    np.testing.assert_allclose(damped / damped.mean(), plain / plain.mean(), rtol=0.5)


def test_what_the_sample_has_much_of_counts_less(model: str) -> None:
    """A document like those of the pool's sample, and one unlike them."""
    pool = [Batch.of([TEXTS[0]] * 30)]
    texts = [TEXTS[0], "#&~@%$ " * 20]
    plain, curved = (
        SelfInfluence(model=model, precision="fp32", preconditioner=kind).fit(pool, {}).score(Batch.of(texts))
        for kind in ("none", "kfac")
    )
    assert curved[0] / curved[1] < plain[0] / plain[1]


def test_embeddings_count_where_they_are_named(model: str) -> None:
    found = score([*TEXTS[:3], ""], model, layers="model.embed_tokens")
    assert (found[:3] > 0).all() and np.isnan(found[3])


def test_bf16_orders_documents_as_fp32(model: str) -> None:
    exact = score([*TEXTS, LONG], model)
    fitted = SelfInfluence(model=model, precision="bf16").fit([Batch.of(TEXTS)], {})
    assert np.corrcoef(fitted.score(Batch.of([*TEXTS, LONG])), exact)[0, 1] > 0.99


def test_the_fit_says_what_it_found(model: str) -> None:
    fitted = SelfInfluence(model=model).fit([Batch.of(TEXTS)], {})
    assert fitted.report == {
        "architecture": "llama", "models": 1, "window": 64, "stride": 32, "layers": 7, "weights": 4608,
        "documents for the curvature": 10,
    }  # fmt: skip
    assert fitted.arrays["outputs.0"].dtype == np.float32
    with pytest.warns(Notice, match=r"\d+ tokens of the pool for layers up to 64 wide"):
        few = SelfInfluence(model=model, factor_documents=1).fit([Batch.of(["short", *TEXTS])], {})
    assert few.report["documents for the curvature"] == 1
    assert set(SelfInfluence(model=model, preconditioner="none").fit([], {}).arrays) == {"layers", "digests"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"preconditioner": "other"}, "preconditioner 'other': unknown"),
        ({"damping": 0.0}, "damping 0.0: out of range"),
        ({"factor_documents": 0}, "factor_documents 0: out of range"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        SelfInfluence(**options)


def test_what_cannot_be_fitted_is_told(model: str) -> None:
    with pytest.raises(UserError, match="no model; name a folder or hub name with --model"):
        SelfInfluence().fit([], {})
    with pytest.raises(UserError, match="the pool's sample: no document with a loss"):
        SelfInfluence(model=model).fit([], {})
    with pytest.raises(UserError, match="matches no layer"):
        score(TEXTS, model, layers="*.nothing")


def test_from_the_command_line(model: str, tmp_path: Path) -> None:
    pool = corpus.write(tmp_path / "pool.jsonl", corpus.pool()[::20])
    ok("fit", "self-influence", "--pool", pool, "--model", model, "--layers", "last", "-o", tmp_path / "s.fitted")
    assert "documents for the curvature" in ok("inspect", tmp_path / "s.fitted").out.decode()
    ok("score", "self-influence", "--fitted", tmp_path / "s.fitted", pool, "-o", tmp_path / "scores")
    (rows,) = ScoreFile(str(tmp_path / "scores" / ("pool.jsonl" + SUFFIX))).rows()
    assert np.nanmin(rows.score) > 0
    assert "no model" in failure("score", "self-influence", pool, "-o", tmp_path / "none")


def test_help_imports_no_model() -> None:
    """The options are shown without torch and transformers, which take seconds to import."""
    heavy = "{'torch', 'transformers', 'numba'} & set(sys.modules)"
    code = f"import sys, dvsel.scorers.self_influence; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
