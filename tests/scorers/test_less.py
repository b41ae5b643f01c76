"""The scorer `less`: beside its formula by plain autograd, fitted, saved, and run from the command line."""

from __future__ import annotations

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
from dvsel.documents.columns import Batch, Column
from dvsel.errors import Notice, UserError
from dvsel.runs import fitted_files as storage
from dvsel.score_files.find import SUFFIX
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers.less import LESS, FittedLESS
from dvsel.testing import check_scorer

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [text[:90] for text in language_models.TEXTS[:8]]
TASKS = {
    "a": [text[:90] for text in language_models.TEXTS[20:22]],
    "b": [text[:90] for text in language_models.TEXTS[30:33]],
}
LONG = language_models.TEXTS[7][:600]
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return language_models.build(tmp_path_factory.mktemp("models") / "llama", hidden=16, layers=1, window=256)


def less(model: str, **options: Any) -> LESS:
    small = {"lora_rank": 2, "lora_alpha": 8.0, "epochs": 2, "batch_documents": 3, "warmup_documents": 6}
    return LESS(**{"model": model, "precision": "fp32", "learning_rate": 1e-2, **small, **options})


def fit(model: str, tasks: dict[str, list[str]] = TASKS, **options: Any) -> FittedLESS:
    targets = {name: [Batch.of(texts)] for name, texts in tasks.items()}
    return less(model, **options).fit([Batch.of(TEXTS)], targets)


class Truth:
    """LESS's formula by peft's own model and autograd in float64, one document at a time."""

    def __init__(self, model: str, fitted: FittedLESS) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.fitted, self.tokenizer = fitted, AutoTokenizer.from_pretrained(model)
        rank, alpha = fitted.scorer.lora_rank, fitted.scorer.lora_alpha
        config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(MODULES))
        self.network = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(model).double(), config).eval()
        self.weights = [weight for name, weight in self.network.named_parameters() if "lora_" in name]
        for weight in self.weights:
            weight.data = weight.data.double()

    def put(self, checkpoint: int) -> None:
        flat, begin = torch.from_numpy(np.array(self.fitted.arrays["adapter"][checkpoint])), 0
        for weight in self.weights:
            weight.data.copy_(flat[begin : begin + weight.numel()].view_as(weight))
            begin += weight.numel()
        assert begin == len(flat)

    def gradient(self, text: str) -> npt.NDArray[np.float64]:
        ids = torch.tensor([self.tokenizer(text)["input_ids"]])
        slopes = torch.autograd.grad(self.network(input_ids=ids, labels=ids).loss, self.weights)
        found: npt.NDArray[np.float64] = torch.cat([one.flatten() for one in slopes]).numpy()
        return found

    def step(self, checkpoint: int, text: str, corrected: bool) -> npt.NDArray[np.float64]:
        gradient, t = self.gradient(text), self.fitted.arrays["steps"][checkpoint] + 1
        m = 0.9 * self.fitted.arrays["first"][checkpoint].astype(np.float64) + 0.1 * gradient
        v = 0.999 * self.fitted.arrays["second"][checkpoint].astype(np.float64) + 0.001 * gradient**2
        if corrected:
            m, v = m / (1 - 0.9**t), v / (1 - 0.999**t)
        found: npt.NDArray[np.float64] = m / np.sqrt(v + 1e-8)
        return found


def cosine(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def scores_of_paper(truth: Truth, texts: list[str]) -> npt.NDArray[np.float64]:
    """By task, (n, tasks): the cosine of Adam's corrected step with the mean of the task's gradients."""
    total = np.zeros((len(texts), len(TASKS)))
    for number, share in enumerate(truth.fitted.arrays["weights"]):
        truth.put(number)
        tasks = [np.mean([truth.gradient(text) for text in documents], 0) for documents in TASKS.values()]
        steps = [truth.step(number, text, corrected=True) for text in texts]
        total += share * np.array([[cosine(step, task) for task in tasks] for step in steps])
    return total


def scores_of_code(truth: Truth, texts: list[str]) -> npt.NDArray[np.float64]:
    """By task, (n, tasks): the mean of the cosines of Adam's step, not corrected, with each of the task's gradients."""
    total = np.zeros((len(texts), len(TASKS)))
    for number, share in enumerate(truth.fitted.arrays["weights"]):
        truth.put(number)
        tasks = [[truth.gradient(text) for text in documents] for documents in TASKS.values()]
        steps = [truth.step(number, text, corrected=False) for text in texts]
        total += share * np.array([[np.mean([cosine(step, one) for one in task]) for task in tasks] for step in steps])
    return total


# --- What is computed. ---


@pytest.mark.parametrize(("variant", "formula"), [("paper", scores_of_paper), ("code", scores_of_code)])
def test_scores_are_those_of_the_formula(variant: str, formula: Any, model: str) -> None:
    fitted = fit(model, variant=variant)
    expected = formula(Truth(model, fitted), [*TEXTS, *TASKS["b"]])
    np.testing.assert_allclose(fitted.score(Batch.of([*TEXTS, *TASKS["b"]])), expected.max(1), rtol=1e-3, atol=1e-5)
    apart = fit(model, variant=variant, separate_targets=True)
    np.testing.assert_allclose(apart.score(Batch.of(TEXTS)), expected[: len(TEXTS)], rtol=1e-3, atol=1e-5)
    assert (apart.groups, apart.shares) == (("a", "b"), (0.4, 0.6))


def test_the_two_variants_differ(model: str) -> None:
    paper, code = (fit(model, variant=variant).score(Batch.of(TEXTS)) for variant in ("paper", "code"))
    assert np.abs(paper - code).max() > 0.01


def test_checkpoints_weigh_what_their_learning_rates_do(model: str) -> None:
    """6 documents in steps of 3, 2 epochs: 4 steps, at 4, 3, 2 and 1 quarters of the highest rate."""
    fitted = fit(model)
    rates = 1e-2 * np.array([0.875, 0.375])
    np.testing.assert_allclose(fitted.report["mean learning rates"], rates, rtol=1e-3)
    np.testing.assert_allclose(fitted.arrays["weights"], rates / rates.sum())
    assert fitted.arrays["steps"].tolist() == [2, 4]


def test_documents_of_the_tasks_score_highest(model: str) -> None:
    fitted = fit(model, {name: texts[:1] for name, texts in TASKS.items()}, lora_rank=8, epochs=1)
    own, others = (fitted.score(Batch.of(texts)) for texts in ([TASKS["a"][0], TASKS["b"][0]], TEXTS))
    assert own.min() > others.max()
    assert np.abs([*own, *others]).max() <= 1


def test_an_instruction_is_context_alone(model: str) -> None:
    """With another instruction the score is another; with all of a document as instruction there is none."""
    fitted = less(model, prompt_field="prompt").fit(
        [prompted(TEXTS, ["Say it."] * 8)], {"t": [prompted(TASKS["a"], ["What?"] * 2)]}
    )
    texts = [TEXTS[0], TEXTS[0], ""]
    found = fitted.score(prompted(texts, ["Say it.", "Do not.", TEXTS[0]]))
    assert np.isnan(found).tolist() == [False, False, True]
    assert found[0] != found[1]


def prompted(texts: list[str], prompts: list[str]) -> Batch:
    text, prompt = Batch.of(texts).text, Batch.of(prompts).text
    columns: dict[str, Column] = {"text": text, "prompt": prompt}
    return Batch(text, columns)


def test_the_warm_up_lowers_losses(model: str) -> None:
    report = fit(model, epochs=4, learning_rate=3e-2, lora_rank=8).report
    losses = report["warm-up losses"]
    assert len(losses) == 4 and losses[-1] < losses[0]
    assert all(len(of_task) == 4 for of_task in report["task losses"].values())


# --- As any other scorer. ---


def test_a_scorer_as_any_other(model: str) -> None:
    check_scorer(less(model, batch_tokens=4096, stride=256, epochs=1), TEXTS[:4], TASKS["a"])


def test_another_seed_trains_another_adapter(model: str) -> None:
    first, other = (storage.to_bytes(fit(model, warmup_seed=seed)) for seed in (0, 1))
    assert storage.to_bytes(fit(model)) == first != other


def test_no_more_documents_are_trained_on_than_asked(model: str) -> None:
    assert fit(model, warmup_documents=3).report["warm-up documents"] == 3
    assert fit(model, warmup_documents=100).report["warm-up documents"] == len(TEXTS)


def test_the_fit_says_what_it_found(model: str) -> None:
    report = fit(model).report
    assert (report["architecture"], report["adapted layers"], report["steps"]) == ("llama", 4, 4)
    assert report["adapter's weights"] == 2 * sum(
        module.in_features + module.out_features for module in attention(model)
    )
    assert report["task documents"] == {"a": 2, "b": 3}


def attention(model: str) -> list[Any]:
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model)
    return [module for name, module in network.named_modules() if name.endswith(MODULES)]


def test_odd_documents_have_scores_and_empty_ones_have_none(model: str) -> None:
    fitted = fit(model)
    assert np.isfinite(fitted.score(Batch.of(["x", " ", "\0", "🙂", LONG]))).all()
    assert np.isnan(fitted.score(Batch.of([""]))).all()
    assert fitted.score(Batch.of([])).shape == (0,)


def test_bf16_orders_documents_as_fp32(model: str) -> None:
    texts = [*TEXTS, *TASKS["a"], *TASKS["b"]]
    exact, rough = (fit(model, precision=precision).score(Batch.of(texts)) for precision in ("fp32", "bf16"))
    assert np.corrcoef(exact, rough)[0, 1] > 0.95


def test_sequence_classifiers_are_scored_by_their_labels(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = language_models.tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=128, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    scorer = less(str(tmp_path), label_field="label")
    fitted = scorer.fit([labelled(TEXTS)], {"t": [labelled(TASKS["a"])]})
    assert np.isfinite(fitted.score(labelled(TEXTS))).all()


def labelled(texts: list[str]) -> Batch:
    text, label = Batch.of(texts).text, Batch.of([str(row % 2) for row in range(len(texts))]).text
    return Batch(text, {"text": text, "label": label})


# --- What goes wrong. ---


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"variant": "book"}, "variant 'book': unknown; give one of paper, code"),
        ({"lora_rank": 0}, "lora_rank 0: out of range"),
        ({"epochs": 0}, "epochs 0: out of range"),
        ({"warmup_documents": 0}, "warmup_documents 0: out of range"),
        ({"batch_documents": 0}, "batch_documents 0: out of range"),
        ({"warmup_seed": -1}, "warmup_seed -1: out of range"),
        ({"learning_rate": 0.0}, "learning_rate 0.0: out of range"),
        ({"lora_alpha": float("nan")}, "lora_alpha nan: out of range"),
        ({"lora_dropout": 1.0}, "lora_dropout 1.0: out of range"),
        ({"reduction": "max"}, "reduction 'max': unknown"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        LESS(**options)


def test_what_cannot_be_fitted_is_told(model: str) -> None:
    with pytest.raises(UserError, match="no model; name a folder or hub name with --model"):
        LESS().fit([Batch.of(TEXTS)], {"t": [Batch.of(TEXTS)]})
    with pytest.raises(UserError, match="no target; name a folder of tasks with --target DIR"):
        less(model).fit([Batch.of(TEXTS)], {})
    with pytest.raises(UserError, match="target b: no document with a loss"):
        fit(model, {"a": ["x y"], "b": [""]})
    with pytest.raises(UserError, match="no document of the pool's sample has a loss"):
        less(model).fit([], {"t": [Batch.of(TEXTS)]})
    with pytest.raises(UserError, match="matches no layer"):
        fit(model, layers="*.query")


def test_a_learning_rate_that_breaks_the_model_is_told(model: str) -> None:
    with pytest.raises(UserError, match=r"losses are NaN or infinite at step \d+ of \d+; lower --learning-rate"):
        fit(model, learning_rate=1e30)


def test_an_adapter_is_refused_as_the_model(model: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model)
    peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is an adapter already; merge it into its base model first"):
        fit(str(tmp_path))


def test_another_model_than_that_of_the_fit_is_refused(model: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "changing"))
    fitted = fit(str(folder))
    language_models.build(folder, hidden=16, layers=1, seed=1)
    with pytest.raises(UserError, match="is not the one of the fit, or its files changed; fit again"):
        fitted.score(Batch.of(["x"]))


def test_documents_whose_loss_is_no_number_are_told(model: str, tmp_path: Path) -> None:
    from dvsel.language.models import load

    folder = Path(shutil.copytree(model, tmp_path / "broken"))
    loaded = load(str(folder), "fp32")
    (token,) = loaded.card.tokenizer("~", add_special_tokens=False)["input_ids"]
    loaded.network.get_input_embeddings().weight.data[token] = float("nan")
    loaded.network.save_pretrained(folder)
    fitted = fit(str(folder))
    with pytest.warns(Notice, match=r"no score for the document '~ 1'\.\.\., whose loss is NaN or infinite"):
        found = fitted.score(Batch.of([TEXTS[0], "~ 1", TEXTS[1]]))
    assert np.isnan(found).tolist() == [False, True, False]


# --- From the command line. ---


def test_fit_score_and_select(model: str, tmp_path: Path) -> None:
    documents = [document | {"text": document["text"][:200]} for document in corpus.pool()[::30]]
    pool = corpus.write(tmp_path / "pool.jsonl", documents)
    for name, texts in TASKS.items():
        corpus.write(tmp_path / "tasks" / f"{name}.jsonl", [{"text": text} for text in texts])
    options = ["--model", model, "--precision", "fp32", "--lora-rank", "2", "--epochs", "1", "--warmup-documents", "8"]
    target = ["--target", tmp_path / "tasks"]
    ok("fit", "less", "--pool", pool, *target, *options, "-o", tmp_path / "l.fitted")
    assert "task documents: {'a.jsonl': 2, 'b.jsonl': 3}" in ok("inspect", tmp_path / "l.fitted").out.decode()
    ok("score", "less", pool, "--fitted", tmp_path / "l.fitted", "-o", tmp_path / "scores")
    ok("score", "less", pool, *target, *options, "-o", tmp_path / "again")
    first, second = (ScoreFile(str(tmp_path / folder / ("pool.jsonl" + SUFFIX))) for folder in ("scores", "again"))
    (rows,), (others,) = first.rows(), second.rows()
    np.testing.assert_array_equal(rows.score, others.score)
    assert np.isfinite(rows.score).all()
    ok("select", tmp_path / "scores", "--budget", "3 docs", "-o", tmp_path / "kept")
    best = np.argsort(rows.score[:, 0])[-3:]
    assert corpus.selected_ids(tmp_path / "kept") == {documents[row]["id"] for row in best}


def test_what_is_wrong_is_one_line(model: str, tmp_path: Path) -> None:
    pool = corpus.write(tmp_path / "pool.jsonl", corpus.pool()[:3])
    assert "needs a target" in failure("score", "less", pool, "--model", model, "-o", tmp_path / "a")
    assert "no model" in failure("score", "less", pool, "--target", pool, "-o", tmp_path / "b")


def test_help_imports_no_model() -> None:
    """The options are shown without torch and transformers, which take seconds to import."""
    code = "import sys, dvsel.scorers.less; sys.exit(bool({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
