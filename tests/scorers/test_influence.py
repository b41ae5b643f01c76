"""The scorer `influence`: fitted, saved and run, from batches and from the command line."""

from __future__ import annotations

import json
import math
import shutil
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
from dvsel.runs import fitted_files as storage
from dvsel.score_files.find import SUFFIX
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers.influence import FittedInfluence, Influence
from dvsel.testing import check_scorer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TEXTS = [text[:200] for text in language_models.TEXTS[:10]]
TARGET = [text[:200] for text in language_models.TEXTS[20:24]]
LONG = language_models.TEXTS[7][:900]


pytestmark = pytest.mark.usefixtures("one_thread")


def fit(model: str, **options: Any) -> FittedInfluence:
    scorer = Influence(model=model, precision="fp32", **options)
    targets = {"a": [Batch.of(TARGET[:1])], "b": [Batch.of(TARGET[1:3]), Batch.of(TARGET[3:])]}
    return scorer.fit([Batch.of(TEXTS)] if scorer.takes_pool else [], targets)


def score(model: str, texts: list[str], **options: Any) -> npt.NDArray[np.float32]:
    return fit(model, **options).score(Batch.of(texts))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"preconditioner": "none", "similarity": "cosine", "rank": 0, "layers": "last", "reduction": "sum"},
    ],
)
def test_a_scorer_as_any_other(model: str, options: dict[str, Any]) -> None:
    fitted = check_scorer(
        Influence(model=model, precision="fp32", batch_tokens=3000, stride=64, **options), TEXTS, TARGET
    )
    assert isinstance(fitted, FittedInfluence)


@pytest.mark.parametrize("preconditioner", ["kfac", "ekfac", "adam", "none"])
def test_the_targets_documents_score_1_on_average(model: str, preconditioner: str) -> None:
    assert score(model, TARGET, preconditioner=preconditioner).mean() == pytest.approx(1, rel=1e-4)
    groups = score(model, TARGET, preconditioner=preconditioner, separate_targets=True)
    assert groups.shape == (4, 2)
    assert groups[0, 0] == pytest.approx(1, rel=1e-4) and groups[1:, 1].mean() == pytest.approx(1, rel=1e-4)


@pytest.mark.filterwarnings("ignore:curvature.*matrix of:dvsel.errors.Notice")  # larger than the sample
@pytest.mark.parametrize("projection", ["target", "random", "pca"])
@pytest.mark.parametrize("preconditioner", ["fisher", "kfac", "ekfac", "none"])
def test_projected_or_not_the_targets_documents_score_1_on_average(
    model: str, preconditioner: str, projection: str
) -> None:
    options = {"preconditioner": preconditioner, "projection": projection, "rank": 4}
    assert score(model, TARGET, **options).mean() == pytest.approx(1, rel=1e-4)


def test_bases_of_full_rank_change_nothing(model: str) -> None:
    options = {"rank": 64, "preconditioner": "kfac"}
    for projection in ("random", "pca"):
        found = score(model, TEXTS, projection=projection, **options)
        np.testing.assert_allclose(found, score(model, TEXTS, rank=0), rtol=1e-3, atol=1e-3)


def test_a_sample_smaller_than_the_fisher_matrix_is_told(model: str) -> None:
    with pytest.warns(Notice, match="10 documents of the pool for a matrix of 16 features"):
        fit(model, preconditioner="fisher", rank=4)


def test_adams_second_moments_come_from_a_checkpoint(model: str, tmp_path: Path) -> None:
    from dvsel.language.models import load

    network = load(model, "fp32").network
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0)
    for weight in network.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    options = {"preconditioner": "adam", "optimizer_state": str(tmp_path / "optimizer.pt"), "rank": 0}
    found = score(model, TEXTS, **options)  # where all moments are the same, nothing is changed
    np.testing.assert_allclose(found, score(model, TEXTS, preconditioner="none", rank=0), rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match=r"optimizer state absent\.pt: cannot be read"):
        fit(model, preconditioner="adam", optimizer_state="absent.pt")


def test_documents_like_the_target_score_higher(model: str) -> None:
    """The second half of a target's document, beside other documents."""
    halves = [(text[:400], text[400:800]) for text in language_models.TEXTS[30:34]]
    scorer = Influence(model=model, precision="fp32")
    fitted = scorer.fit([Batch.of(TEXTS)], {"t": [Batch.of([first for first, _ in halves])]})
    like, unlike = (fitted.score(Batch.of(texts)) for texts in ([second for _, second in halves], TEXTS))
    assert like.mean() > unlike.mean()
    assert fitted.score(Batch.of([halves[0][0]]))[0] > np.nanmax(unlike)


def test_a_step_on_the_best_document_lowers_the_targets_loss_most(model: str) -> None:
    """By retraining: a small step of gradient descent on each document, all weights of the captured layers."""
    from dvsel.gradients.layers import choose
    from dvsel.language.models import load
    from dvsel.language.token_losses import LossMeter

    scores = score(model, TEXTS, preconditioner="none", rank=0)
    loaded = load(model, "fp32")
    weights = [layer.module.weight for layer in choose(loaded, "all")]
    before = [weight.clone() for weight in weights]

    def target_loss() -> float:
        losses = LossMeter(loaded).token_losses(TARGET)
        return float(np.mean([one.mean(dtype=np.float64) for one in losses]))

    start, gains = target_loss(), []
    for text in TEXTS:
        ids = torch.tensor([loaded.card.tokenizer(text)["input_ids"][:64]])
        for weight in weights:
            weight.requires_grad_(True)
        slopes = torch.autograd.grad(loaded.network(input_ids=ids, labels=ids).loss, weights)
        for weight, slope in zip(weights, slopes, strict=True):
            weight.requires_grad_(False).sub_(3e-3 * slope)
        gains.append(start - target_loss())
        for weight, old in zip(weights, before, strict=True):
            weight.copy_(old)
    assert np.corrcoef(scores, gains)[0, 1] > 0.9


def test_rank_and_energy_come_to_the_whole(model: str) -> None:
    whole = score(model, TEXTS, rank=0)
    np.testing.assert_allclose(score(model, TEXTS, energy=1.0), whole, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(score(model, TEXTS, rank=16), whole, rtol=1e-3, atol=1e-3)
    errors = [np.abs(score(model, TEXTS, rank=rank) - whole).mean() for rank in (1, 8)]
    assert errors[0] > errors[1] > 0


def test_cosines_are_between_minus_1_and_1(model: str) -> None:
    found = score(model, [*TARGET, *TEXTS, LONG], similarity="cosine", preconditioner="none")
    assert np.abs(found).max() <= 1
    alone = Influence(model=model, similarity="cosine", preconditioner="none", precision="fp32", rank=0).fit(
        [], {"t": [Batch.of([LONG])]}
    )
    assert alone.score(Batch.of([LONG]))[0] == pytest.approx(1, rel=1e-5)


def test_bf16_orders_documents_as_fp32(model: str) -> None:
    options: dict[str, Any] = {"reduction": "sum", "rank": 4}
    exact = score(model, TEXTS + TARGET, **options)
    targets = {"t": [Batch.of(TARGET)]}
    fitted = Influence(model=model, precision="bf16", **options).fit([Batch.of(TEXTS)], targets)
    assert np.corrcoef(fitted.score(Batch.of(TEXTS + TARGET)), exact)[0, 1] > 0.99


def test_odd_documents_have_scores_and_empty_ones_have_none(model: str) -> None:
    fitted = fit(model)
    assert np.isfinite(fitted.score(Batch.of(["x", " ", "\0", "🙂", LONG]))).all()
    assert np.isnan(fitted.score(Batch.of([""]))).all()
    assert fitted.score(Batch.of([])).shape == (0,)


def test_the_fit_says_what_it_found(model: str) -> None:
    fitted = fit(model, separate_targets=True, energy=0.7)
    report = fitted.report
    assert report["architecture"] == "llama" and report["layers"] == 7
    assert report["target documents"] == [1, 3] and report["documents for the curvature"] == len(TEXTS)
    assert all(0 < loss < 20 for loss in report["target loss"])
    assert list(report["ranks"].values()) == fitted.arrays["ranks"][0].tolist()
    assert fitted.groups == ("a", "b") and fitted.shares == (0.25, 0.75)
    assert any(line.startswith("rank: ") and "on average" in line for line in fitted.lines())
    assert not any(line.startswith("ranks") for line in fitted.lines())
    loaded = storage.from_bytes(storage.to_bytes(fitted), "saved")
    assert loaded.report == report


def test_the_curvature_takes_no_more_documents_than_asked(model: str) -> None:
    with pytest.warns(Notice, match=r"\d+ tokens of the pool for layers up to 64 wide"):
        fitted = Influence(model=model, precision="fp32", factor_documents=1).fit(
            [Batch.of(["short"]), Batch.of(TEXTS)], {"t": [Batch.of(TARGET)]}
        )
    assert fitted.report["documents for the curvature"] == 1


def test_a_pool_is_needed_for_the_curvature_alone() -> None:
    assert Influence().takes_pool and Influence(preconditioner="ekfac").takes_pool
    assert Influence(preconditioner="none", projection="pca").takes_pool and Influence(preconditioner="adam").takes_pool
    assert not Influence(preconditioner="none", projection="random").takes_pool
    assert not Influence(preconditioner="none").takes_pool
    assert not Influence(preconditioner="adam", optimizer_state="optimizer.pt").takes_pool


def test_another_model_than_that_of_the_fit_is_refused(model: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "changing"))
    fitted = fit(str(folder), preconditioner="none")
    language_models.build(folder, hidden=16, layers=1, window=64, seed=1)
    with pytest.raises(UserError, match="is not the one of the fit, or its files changed; fit again"):
        fitted.score(Batch.of(["x"]))


def test_documents_whose_loss_is_no_number_are_told(model: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "broken"))
    from dvsel.language.models import load

    loaded = load(str(folder), "fp32")
    (token,) = loaded.card.tokenizer("~", add_special_tokens=False)["input_ids"]
    loaded.network.get_input_embeddings().weight.data[token] = math.nan
    loaded.network.save_pretrained(folder)
    scorer = Influence(model=str(folder), precision="fp32", preconditioner="none")
    with pytest.warns(Notice, match="target t, document 2: its loss is NaN or infinite, so it is left out"):
        fitted = scorer.fit([], {"t": [Batch.of([TARGET[0], "~ 0", TARGET[1]])]})
    with pytest.warns(Notice, match=r"no score for .* '~ 1'\.\.\., whose loss is NaN or infinite, as for 1 others"):
        found = fitted.score(Batch.of([TARGET[0], "~ 1", "~ 2", TARGET[1]]))
    assert np.isnan(found).tolist() == [False, True, True, False]
    assert found[[0, 3]].mean() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"preconditioner": "sgd"}, "preconditioner 'sgd': unknown; give one of kfac, ekfac, fisher, adam, none"),
        ({"projection": "svd"}, "projection 'svd': unknown; give one of target, random, pca"),
        ({"projection": "random", "rank": 0}, "projection random: is of one rank in all layers; give --rank 1 or more"),
        ({"projection": "pca", "energy": 0.9}, "projection pca: is of one rank in all layers; .* without --energy"),
        ({"preconditioner": "fisher", "effort": "full"}, "fisher: is of one rank in all layers; give --rank"),
        ({"preconditioner": "fisher", "rank": 65}, "rank 65: fisher holds its square of numbers .*; give 64 or less"),
        ({"preconditioner": "adam", "projection": "pca"}, "projection pca: adam goes by single weights"),
        ({"optimizer_state": "x.pt"}, "--optimizer-state: belongs to --preconditioner adam"),
        ({"similarity": "l2"}, "similarity 'l2': unknown"),
        ({"reduction": "max"}, "reduction 'max': unknown"),
        ({"precision": "fp16"}, "precision 'fp16': unknown"),
        ({"damping": 0.0}, "damping 0.0: out of range"),
        ({"damping": math.inf}, "damping inf: out of range"),
        ({"energy": 1.5}, "energy 1.5: out of range"),
        ({"energy": math.nan}, "energy nan: out of range"),
        ({"rank": -1}, "rank -1: out of range"),
        ({"factor_documents": 0}, "factor_documents 0: out of range"),
        ({"window": -1}, "window -1: out of range"),
        ({"batch_tokens": -1}, "batch_tokens -1: out of range"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        Influence(**options)


def test_what_cannot_be_fitted_is_told(model: str) -> None:
    with pytest.raises(UserError, match="no model; name a folder or hub name with --model"):
        Influence().fit([], {"t": [Batch.of(TARGET)]})
    with pytest.raises(UserError, match="no target; name one with --target"):
        Influence(model=model).fit([], {})
    with pytest.raises(UserError, match="target b: no document with a loss"):
        Influence(model=model, separate_targets=True).fit([], {"a": [Batch.of(["x"])], "b": [Batch.of([""])]})
    with pytest.raises(UserError, match="the pool's sample: no document with a loss"):
        Influence(model=model).fit([], {"a": [Batch.of(["x"])]})
    with pytest.raises(UserError, match="matches no layer"):
        fit(model, layers="*.nothing")


# --- From the command line. ---


def test_fit_score_and_select(model: str, tmp_path: Path) -> None:
    documents = corpus.pool()[::20]
    pool = corpus.write(tmp_path / "pool.jsonl", documents)
    target = corpus.write(tmp_path / "target.jsonl", [{"text": text} for text in TARGET])
    options = ["--model", model, "--precision", "fp32", "--rank", "4"]
    ok("fit", "influence", "--pool", pool, "--target", target, *options, "-o", tmp_path / "i.fitted")
    assert "rank: 4 to 4, 4.0 on average" in ok("inspect", tmp_path / "i.fitted").out.decode()
    ok("score", "influence", "--fitted", tmp_path / "i.fitted", pool, "-o", tmp_path / "scores")
    ok("score", "influence", pool, "--target", target, *options, "-o", tmp_path / "again")
    first, second = (ScoreFile(str(tmp_path / folder / ("pool.jsonl" + SUFFIX))) for folder in ("scores", "again"))
    (rows,), (others,) = first.rows(), second.rows()
    np.testing.assert_array_equal(rows.score, others.score)
    ok("select", tmp_path / "scores", "--budget", "5 docs", "-o", tmp_path / "kept")
    best = np.argsort(rows.score[:, 0])[-5:]
    assert corpus.selected_ids(tmp_path / "kept") == {documents[row]["id"] for row in best}


def test_a_filter_on_a_pipe(model: str, tmp_path: Path) -> None:
    target = corpus.write(tmp_path / "target.jsonl", [{"text": text} for text in TARGET])
    ok(
        "fit",
        "influence",
        "--target",
        target,
        "--model",
        model,
        "--preconditioner",
        "none",
        "-o",
        tmp_path / "i.fitted",
    )
    answer = ok("score", "influence", "--fitted", tmp_path / "i.fitted", "-", stdin=corpus.lines([{"text": "x"}]))
    assert math.isfinite(json.loads(answer.out)["dvsel_influence"])


def test_what_is_wrong_is_one_line(model: str, tmp_path: Path) -> None:
    pool = corpus.write(tmp_path / "pool.jsonl", corpus.pool()[:3])
    assert "needs a target" in failure("score", "influence", pool, "--model", model, "-o", tmp_path / "a")
    assert "no model" in failure("score", "influence", pool, "--target", pool, "-o", tmp_path / "b")


def test_help_imports_no_model() -> None:
    """The options are shown without torch and transformers, which take seconds to import."""
    code = "import sys, dvsel.scorers.influence; sys.exit(bool({'torch', 'transformers', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
