"""dvsel's gradient scorers, with the options that `lds.py` compares. A new option is one more line of `VARIANTS`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lds_scores import MARK, Clock, Floats, Method, Question, Scored

from dvsel.documents.columns import Batch, Column
from dvsel.gradients.fitted_directions import FittedDirections
from dvsel.gradients.low_rank import Direction
from dvsel.gradients.moments import ByDocument
from dvsel.scorers import Fitted, Scorer
from dvsel.scorers.influence import Influence

Options = Mapping[str, Any]

WHOLE: Options = {"rank": 0}
EKFAC: Options = {"preconditioner": "ekfac"}
STATE = "optimizer.pt"  # beside the model
VARIANTS: dict[str, Options] = {
    "no curvature": {"preconditioner": "none", **WHOLE},
    "no curvature, cosine": {"preconditioner": "none", "similarity": "cosine", **WHOLE},
    "no curvature, rank 16": {"preconditioner": "none", "rank": 16},
    "K-FAC": WHOLE,
    "K-FAC, rank 1": {"rank": 1},
    "K-FAC, rank 4": {"rank": 4},
    "K-FAC, rank 16": {"rank": 16},
    "K-FAC, rank 32": {"rank": 32},
    "K-FAC, energy .9": {"energy": 0.9},
    "EK-FAC": {**EKFAC, **WHOLE},
    "EK-FAC, rank 16": {**EKFAC, "rank": 16},
    "EK-FAC, rank 32": {**EKFAC, "rank": 32},
    "EK-FAC, energy .9": {**EKFAC, "energy": 0.9},
    "EK-FAC, damping .01": {**EKFAC, **WHOLE, "damping": 0.01},
    "EK-FAC, damping 1": {**EKFAC, **WHOLE, "damping": 1.0},
    "EK-FAC of all documents": {**EKFAC, **WHOLE, "factor_documents": 1000},
    "EK-FAC of all documents, energy .9": {**EKFAC, "energy": 0.9, "factor_documents": 1000},
    "K-FAC of 100 documents": {"factor_documents": 100, **WHOLE},
    "K-FAC, cosine": {"similarity": "cosine", **WHOLE},
    "K-FAC, upper half": {"layers": "upper-half", **WHOLE},
    "K-FAC, last": {"layers": "last", **WHOLE},
    "K-FAC, rank 16, upper half": {"layers": "upper-half", "rank": 16},
    "K-FAC, rank 16, last": {"layers": "last", "rank": 16},
    "K-FAC, rank 32, bf16": {"precision": "bf16", "rank": 32},
    "Adam, of the optimizer": {"preconditioner": "adam", "optimizer_state": STATE, **WHOLE},
    "Adam, of the sample": {"preconditioner": "adam", **WHOLE},
    "LoGra, rank 16": {"preconditioner": "none", "projection": "random", "rank": 16},
    "LoGra, rank 16, Fisher": {"preconditioner": "fisher", "projection": "random", "rank": 16},
    "LoGra, rank 16, Fisher of all documents": {
        "preconditioner": "fisher",
        "projection": "random",
        "rank": 16,
        "factor_documents": 1000,
    },
    "PCA, rank 16, Fisher": {"preconditioner": "fisher", "projection": "pca", "rank": 16},
    "PCA, rank 16, Fisher of all documents": {
        "preconditioner": "fisher",
        "projection": "pca",
        "rank": 16,
        "factor_documents": 1000,
    },
}
PROMPT = "prompt"
ANSWERS: Options = {"prompt_field": PROMPT, "prompt_separator": ""}
_MANY = 16  # groups, above which whole gradients of documents are less work


def methods() -> Iterator[tuple[str, Method]]:
    for name, options in VARIANTS.items():
        yield f"dvsel {name}", functools.partial(score, options=options)


def score(question: Question, options: Options) -> Scored:
    """Fitted and scored for the groups, which is what is timed, and for single queries."""
    if options.get("optimizer_state") == STATE:
        options = {**options, "optimizer_state": str(Path(question.model) / STATE)}
    if question.answer:
        options = {**options, **ANSWERS}
    scorer = Influence(model=question.model, separate_targets=True, **options)
    clock = Clock()
    fitted = fit(scorer, question, [[question.queries[row] for row in group] for group in question.groups])
    seconds = clock.lap()
    groups = fitted.score(batch(question, question.candidates)).reshape(len(question.candidates), -1).astype(np.float64)
    cost = clock.lap()
    queries = single(
        fit(scorer, question, [[query] for query in question.queries]), batch(question, question.candidates)
    )
    return Scored(queries, groups, seconds, cost, f"{len(question.groups)} groups")


def fit(scorer: Scorer, question: Question, targets: Sequence[Sequence[str]]) -> Fitted:
    """Fitted on the candidates and these targets."""
    order = np.random.default_rng(0).permutation(len(question.candidates)).tolist()
    pool = [batch(question, [question.candidates[row] for row in order])]  # as the flow draws its sample, mixed
    return scorer.fit(pool, {f"target {number}": [batch(question, texts)] for number, texts in enumerate(targets)})


def batch(question: Question, texts: Sequence[str]) -> Batch:
    """As dvsel reads them; where an answer alone counts, what comes before it is the prompt."""
    if not question.answer:
        return Batch.of(texts)
    parts = [text.rpartition(MARK) for text in texts]
    prompts = Column.of([(before + mark).encode() for before, mark, _ in parts])
    return Batch(Column.of([answer.encode() for *_, answer in parts]), {PROMPT: prompts})


class Products(ByDocument):
    """<G, Q> of documents with many directions at once: each document's G is made whole, which is then less work than
    a comparison token by token.

    products: float64 (documents, directions). squares: float64 (documents,), |G|^2.
    """

    def __init__(self, directions: Sequence[Sequence[Direction]], documents: int) -> None:
        super().__init__()
        self.matrices = [
            torch.stack([(one.left @ one.right.T).float().flatten() for one in layer]) for layer in directions
        ]
        self.products = torch.zeros(documents, len(directions[0]), dtype=torch.float64)
        self.squares = torch.zeros(documents, dtype=torch.float64)

    def keep(self, layer: int, inputs: Any) -> Any:  # noqa: ARG002
        return inputs

    def take(self, layer: int, kept: Any, slopes: torch.Tensor) -> None:
        found = [(document, gradient.flatten()) for document, gradient in self.gradients(layer, kept, slopes)]
        if found:
            documents = torch.tensor([document for document, _ in found])
            gradients = torch.stack([gradient for _, gradient in found])
            self.products.index_add_(0, documents, (gradients @ self.matrices[layer].T).double())
            self.squares.index_add_(0, documents, gradients.square().sum(1).double())


def single(fitted: Fitted, candidates: Batch) -> Floats:
    """The scores of `fitted.score`, where there are many groups by way of whole gradients."""
    if not isinstance(fitted, FittedDirections) or len(fitted.groups) < _MANY or len(fitted.meters) > 1:
        return fitted.score(candidates).reshape(len(candidates), -1).astype(np.float64)
    found = Products(fitted.directions[0], len(candidates))
    fitted.meters[0].run(fitted.options.documents([candidates]), found, fitted.options.reduction)
    if fitted.cosine:
        norms = torch.stack([matrix.double().square().sum(1) for matrix in found.matrices]).sum(0).sqrt()
        return (found.products / found.squares.sqrt()[:, None] / norms).numpy()
    return found.products.numpy()
