"""Numbers whose gradients are taken: one for each prediction, by its logits; lower is surer of the right token.

Each function takes logits (n, vocabulary), float32 or float64, which it may write over, and the right token of each,
int64 (n, 1). It returns the number, (n,), and its gradient by the logits, (n, vocabulary). What stands beside the
number, in further columns of (n, columns), is summed as it is, without a gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Output = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def cross_entropy(logits: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """-log p, in nats; by the logits, p less 1 where right."""
    logs = logits.log_softmax(1)
    losses = -logs.gather(1, right)[:, 0]
    wrong = logs.exp_()
    return losses, wrong.scatter_add_(1, right, wrong.new_full(right.shape, -1))


def margin(logits: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """-log(p / (1 - p)): the output function of TRAK (Park et al. 2023, "TRAK: Attributing Model Behavior at Scale",
    eq. 6), with the sign of a loss. By the logits, the softmax over the wrong tokens, and -1 where right.
    """
    own = logits.gather(1, right)[:, 0]
    others = logits.scatter(1, right, -torch.inf)
    numbers = others.logsumexp(1) - own
    return numbers, others.softmax(1).scatter_(1, right, -1.0)


def error(logits: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """|p - y|, y being 1 at the right token and 0 elsewhere: EL2N's (Paul et al. 2021, "Deep Learning on a Data Diet",
    definition 4). By the logits J (p - y) / |p - y|, with J = diag(p) - p p^T.
    """
    shares = logits.softmax(1)
    wrong = shares.scatter_add(1, right, shares.new_full(right.shape, -1))
    lengths = wrong.norm(dim=1)
    weighted = shares * wrong
    slopes = (weighted - shares * weighted.sum(1, keepdim=True)) / lengths.clamp(min=1e-30)[:, None]
    return lengths, slopes


def logit(logits: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Minus the right token's logit, which VoG takes (Agarwal et al. 2022, "Estimating Example Difficulty Using
    Variance of Gradients", eq. 1); by the logits, -1 where right.
    """
    return -logits.gather(1, right)[:, 0], torch.zeros_like(logits).scatter_(1, right, -1.0)


def margin_and_doubt(logits: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The margin, and beside it 1 - p: TRAK's Q (Park et al. 2023, section 3), by how much the loss moves with it."""
    numbers, slopes = margin(logits, right)
    return torch.stack([numbers, numbers.sigmoid()], 1), slopes
