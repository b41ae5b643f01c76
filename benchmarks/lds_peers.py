"""Other libraries for data attribution, on the same question as dvsel: bergson, kronfluence, traker and dattri.

Each sees the same tokens and the same linear layers of the model's blocks. A family shares what its library computes
once. Its scores are turned so that higher means that training on the candidate lowers the loss on the query.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lds_scores import MARK, Clock, Missing, Question, Scored
from lds_truth import START, encode, losses
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

Answers = Iterator[tuple[str, Scored]]
_BATCH = 50


@dataclass(frozen=True)
class Family:
    """names: of the answers that `run` gives. module: what must be importable."""

    names: tuple[str, ...]
    module: str
    run: Callable[[Question], Answers]

    def check(self) -> None:
        """Raises Missing where the library is not there."""
        if importlib.util.find_spec(self.module) is None:
            raise Missing(f"{self.module} is not installed; pip install -r benchmarks/requirements.txt")
        try:
            importlib.import_module(self.module)
        except Exception as error:
            raise Missing(f"{self.module} cannot be imported: {str(error).splitlines()[0]}") from error


def families() -> Iterator[Family]:
    yield Family(
        ("kronfluence EK-FAC, damping .1 of the mean", "kronfluence EK-FAC, damping 1e-8 (its default)"),
        "kronfluence",
        lambda question: kronfluence(question, empirical=False),
    )
    yield Family(
        ("kronfluence EK-FAC, empirical Fisher",), "kronfluence", lambda question: kronfluence(question, empirical=True)
    )
    yield Family(("bergson EK-FAC",), "bergson", lambda question: bergson_ekfac(question, labels=False))
    yield Family(
        ("bergson EK-FAC, empirical Fisher",), "bergson", lambda question: bergson_ekfac(question, labels=True)
    )
    yield Family(("bergson TrackStar",), "bergson", lambda question: bergson_trackstar(question, optimizer=False))
    yield Family(("bergson TrackStar, Adam",), "bergson", lambda question: bergson_trackstar(question, optimizer=True))
    yield Family(
        ("dattri LoGra, 16 x 16", "dattri LoGra, 16 x 16, damping .1"),
        "dattri",
        lambda question: dattri_logra(question),
    )
    yield Family(
        ("dattri EK-FAC, damping .1 of the mean", "dattri EK-FAC, no damping (its default)"),
        "dattri",
        lambda question: dattri_ekfac(question),
    )
    yield Family(("traker, 512 dimensions",), "trak", lambda question: traker(question, 512, 0.0))
    yield Family(("traker, 2,048 dimensions, ridge",), "trak", lambda question: traker(question, 2048, 1e3))


def _model(question: Question, attention: str = "sdpa") -> tuple[Any, torch.Tensor, torch.Tensor, list[str]]:
    """The model, tokens of candidates and of queries, and the names of the linear layers of its blocks."""
    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(question.model, attn_implementation=attention).eval()
    tokenizer = AutoTokenizer.from_pretrained(question.model)
    head = model.get_output_embeddings()
    linear = [name for name, one in model.named_modules() if isinstance(one, torch.nn.Linear) and one is not head]
    return model, encode(tokenizer, question.candidates), encode(tokenizer, question.queries), linear


def _cleared(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


class _Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """labels: -100 where a token does not count."""

    def __init__(self, ids: torch.Tensor, answer: int = 0) -> None:
        self.ids, self.labels = ids, ids.clone()
        if answer:
            self.labels[:, :-answer] = -100

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[row], "labels": self.labels[row]}


def kronfluence(question: Question, empirical: bool) -> Answers:
    """Grosse et al. 2023. Its documentation advises a damping of .1 of the mean (None); its default is 1e-8."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    model, candidates, queries, linear = _model(question)

    class LanguageTask(Task):  # type: ignore[misc]
        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> torch.Tensor:
            ids = batch["input_ids"]
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits[:, -question.answer :].flatten(0, 1)
            labels = ids[:, 1:][:, -question.answer :].flatten()
            if sample:
                labels = torch.multinomial(logits.detach().softmax(1), 1).flatten()
            return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch: Any, model: Any) -> torch.Tensor:
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return linear

    task = LanguageTask()
    folder = _cleared(question.folder / "kronfluence")
    analyzer = Analyzer(
        "lds", prepare_model(model, task), task, cpu=True, output_dir=str(folder), disable_tqdm=True, log_level=40
    )
    clock = Clock()
    arguments = FactorArguments(strategy="ekfac", use_empirical_fisher=empirical)
    analyzer.fit_all_factors("f", _Rows(candidates), per_device_batch_size=_BATCH, factor_args=arguments)
    fit = clock.lap()
    dampings = (
        {"empirical Fisher": None}
        if empirical
        else {"damping .1 of the mean": None, "damping 1e-8 (its default)": 1e-8}
    )
    for name, damping in dampings.items():
        clock.lap()
        analyzer.compute_pairwise_scores(
            "s",
            "f",
            _Rows(queries),
            _Rows(candidates),
            per_device_query_batch_size=_BATCH,
            per_device_train_batch_size=_BATCH,
            score_args=ScoreArguments(damping_factor=damping),
            overwrite_output_dir=True,
        )
        scores = analyzer.load_pairwise_scores("s")["all_modules"].T
        yield f"kronfluence EK-FAC, {name}", Scored.of(question, scores, fit, clock.lap())


def _bergson_files(question: Question) -> tuple[dict[str, Any], Any]:
    """What bergson calls the configuration of an index, and of a set of queries."""
    from bergson.config.config import DataConfig, QuerySetConfig

    folder = _cleared(question.folder / "bergson")
    shutil.copytree(question.model, folder / "model")
    config = json.loads((folder / "model" / "config.json").read_text())
    config["max_position_embeddings"] = _BATCH * 128  # its batches hold no more tokens than the model takes in a row
    (folder / "model" / "config.json").write_text(json.dumps(config))
    (folder / "model" / "chat_template.jinja").write_text("{% for one in messages %}{{ one.content }}{% endfor %}")
    for part, texts in {"candidates": question.candidates, "queries": question.queries}.items():
        lines = [json.dumps(_bergson_row(question, text)) for text in texts]
        (folder / f"{part}.jsonl").write_text("\n".join(lines))
    columns = {"completion_column": "answer"} if question.answer else {}
    index = {
        "run_path": str(folder / "run"),
        "model": str(folder / "model"),
        "data": DataConfig(dataset=str(folder / "candidates.jsonl"), **columns),
        "token_batch_size": _BATCH * 128,
    }
    return index, QuerySetConfig(dataset=str(folder / "queries.jsonl"), aggregation="none", **columns)


def _bergson_row(question: Question, text: str) -> dict[str, str]:
    """With the start token, which it does not add."""
    if not question.answer:
        return {"text": START + text}
    before, mark, answer = text.rpartition(MARK)
    return {"text": START + before + mark, "answer": answer}


def _bergson_scores(index: dict[str, Any]) -> Any:
    from bergson.data import load_scores

    return load_scores(Path(index["run_path"]) / "scores")[:]


def bergson_ekfac(question: Question, labels: bool) -> Answers:
    """`bergson ekfac`. labels: the text's own, for the empirical Fisher, in place of sampled ones (its default)."""
    from bergson.cli.commands import Ekfac
    from bergson.config.config import HessianConfig, HessianPipelineConfig, IndexConfig, PreprocessConfig, ScoreConfig

    index, queries = _bergson_files(question)
    command = Ekfac(
        IndexConfig(**index),
        HessianConfig(method="kfac", ev_correction=True, use_dataset_labels=labels),
        ScoreConfig(),
        PreprocessConfig(),
        HessianPipelineConfig(query=queries),
    )
    clock = Clock()
    _quietly(command.execute)
    name = "bergson EK-FAC, empirical Fisher" if labels else "bergson EK-FAC"
    yield name, Scored.of(question, _bergson_scores(index), 0.0, clock.lap())


def bergson_trackstar(question: Question, optimizer: bool) -> Answers:
    """`bergson trackstar` with unit norms, as the paper has it. optimizer: with Adam's second moments."""
    from bergson.cli.commands import Trackstar
    from bergson.config.config import PreprocessConfig, TrackstarConfig, TrackstarIndexConfig

    index, queries = _bergson_files(question)
    state = str(Path(question.model) / "optimizer.pt") if optimizer else ""
    command = Trackstar(
        TrackstarIndexConfig(**index, optimizer_state=state),
        TrackstarConfig(query=queries, preprocess_cfg=PreprocessConfig(unit_normalize=True)),
    )
    clock = Clock()
    _quietly(command.execute)
    name = "bergson TrackStar, Adam" if optimizer else "bergson TrackStar"
    yield name, Scored.of(question, _bergson_scores(index), 0.0, clock.lap())


def _quietly(work: Callable[[], None]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        work()


def _loader(rows: Any) -> Any:
    return torch.utils.data.DataLoader(rows, batch_size=_BATCH)


def dattri_logra(question: Question) -> Answers:
    """LoGra with the empirical Fisher of the projected gradients."""
    from dattri.algorithm.logra import LoGraAttributor
    from dattri.task import AttributionTask

    model, candidates, queries, linear = _model(question)
    pool, wanted = (_loader(_Rows(ids, question.answer)) for ids in (candidates, queries))
    task = AttributionTask(
        loss_func=lambda model, batch, device: model(**batch).loss,  # noqa: ARG005
        model=model,
        checkpoints=model.state_dict(),
    )
    for name, damping in {"dattri LoGra, 16 x 16": None, "dattri LoGra, 16 x 16, damping .1": 0.1}.items():
        clock = Clock()
        torch.manual_seed(0)
        attributor = LoGraAttributor(
            task,
            linear,
            proj_dim=256,
            damping=damping,
            offload="none",
            cache_dir=str(_cleared(question.folder / "dattri")),
        )
        _quietly(partial(attributor.cache, pool))
        fit = clock.lap()
        with contextlib.redirect_stderr(io.StringIO()):
            scores = attributor.attribute(pool, wanted)
        yield name, Scored.of(question, scores.detach(), fit, clock.lap())


def _functional_loss(model: Any, answer: int) -> Callable[[Any, Any], torch.Tensor]:
    def loss(weights: Any, batch: Any) -> torch.Tensor:
        return losses(lambda **held: torch.func.functional_call(model, weights, (), held), batch[0], answer).mean()

    return loss


def dattri_ekfac(question: Question) -> Answers:
    """EK-FAC, whose damping is one number for all layers; 0 is its default."""
    from dattri.algorithm.influence_function import IFAttributorEKFAC
    from dattri.task import AttributionTask

    model, candidates, queries, linear = _model(question, "eager")
    pool, wanted = (_loader(torch.utils.data.TensorDataset(ids)) for ids in (candidates, queries))
    task = AttributionTask(
        loss_func=_functional_loss(model, question.answer), model=model, checkpoints=model.state_dict()
    )
    clock = Clock()
    attributor = IFAttributorEKFAC(task, linear)
    attributor.cache(pool)
    fit = clock.lap()
    mean = torch.cat([one.flatten() for one in attributor.cached_lambdas.values()]).mean().item()
    for name, damping in {"damping .1 of the mean": 0.1 * mean, "no damping (its default)": 0.0}.items():
        attributor.damping = damping
        clock.lap()
        with contextlib.redirect_stderr(io.StringIO()):
            scores = attributor.attribute(pool, wanted)
        yield f"dattri EK-FAC, {name}", Scored.of(question, scores.detach(), fit, clock.lap())


def traker(question: Question, dimensions: int, ridge: float) -> Answers:
    """TRAK from one checkpoint, of the mean margin of a document's tokens."""
    from trak import TRAKer
    from trak.modelout_functions import AbstractModelOutput

    model, candidates, queries, linear = _model(question, "eager")

    class Margins(AbstractModelOutput):  # type: ignore[misc]
        def __init__(self) -> None:
            pass

        @staticmethod
        def get_output(model: Any, weights: Any, buffers: Any, ids: torch.Tensor) -> torch.Tensor:
            held = {"input_ids": ids[None, :-1], "use_cache": False}
            logits = torch.func.functional_call(model, (weights, buffers), (), held).logits[0]
            right = ids[1:, None] == torch.arange(logits.shape[-1])
            others = logits.masked_fill(right, -torch.inf).logsumexp(1)
            margin: torch.Tensor = ((logits * right).sum(1) - others)[-question.answer :].mean()
            return margin

        def get_out_to_loss_grad(self, model: Any, weights: Any, buffers: Any, batch: Any) -> torch.Tensor:  # noqa: ARG002
            with torch.no_grad():
                return (1 - torch.exp(-losses(model, batch[0], question.answer)))[:, None]

    folder = _cleared(question.folder / "traker")
    clock = Clock()
    tracer = TRAKer(
        model,
        Margins(),
        len(candidates),
        save_dir=str(folder),
        device="cpu",
        proj_dim=dimensions,
        use_half_precision=False,
        grad_wrt=[f"{name}.weight" for name in linear],
        lambda_reg=ridge,
        logging_level=logging.ERROR,
    )
    tracer.load_checkpoint(model.state_dict(), model_id=0)
    for batch in _batches(candidates):
        tracer.featurize(batch=[batch], num_samples=len(batch))
    with contextlib.redirect_stderr(io.StringIO()):
        tracer.finalize_features()
    fit = clock.lap()
    tracer.start_scoring_checkpoint("queries", model.state_dict(), model_id=0, num_targets=len(queries))
    for batch in _batches(queries):
        tracer.score(batch=[batch], num_samples=len(batch))
    with contextlib.redirect_stderr(io.StringIO()):
        scores = tracer.finalize_scores("queries")
    name = f"traker, {dimensions:,} dimensions" + (", ridge" if ridge else "")
    yield name, Scored.of(question, scores, fit, clock.lap())


def _batches(ids: torch.Tensor) -> Sequence[torch.Tensor]:
    return torch.split(ids, 4 * _BATCH)  # its projection is made for each batch
