"""Collapse and health: is this run learning, and if not, why."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

COLLAPSED_STD = 0.1
COLLAPSED_RANK = 1.5
UNIFORM = 0.98  # share of the largest entropy


@dataclass(frozen=True)
class Health:
    """The spread of a batch of embeddings.

    ``std``: mean standard deviation of the components of unit-length embeddings, times sqrt(D); 1 is isotropic, 0
    collapsed (SimSiam, section 4.1). ``rank``: effective rank, the exponential of the entropy of the normalised
    singular values of the centred batch (RankMe, arXiv 2210.02885, eq. 3), at most min(B - 1, D) = ``full``.
    ``uniform_targets``: the targets that a method made say nothing (SwAV at a loss of ln K).
    """

    std: float
    rank: float
    full: int
    uniform_targets: bool = False

    @property
    def collapsed(self) -> bool:
        return self.std < COLLAPSED_STD or (self.rank < COLLAPSED_RANK and self.full > 4)

    @property
    def word(self) -> str:
        if self.collapsed:
            return "collapsed"
        if self.uniform_targets:
            return "stuck (uniform targets)"
        return "weak" if self.std < 0.3 or self.rank < 0.1 * self.full else "learning"

    def __str__(self) -> str:
        return f"{self.word} · rank {self.rank:.0f}/{self.full} · std {self.std:.2f}/√D"


@torch.no_grad()
def health(embedding: Tensor, target_entropy: float | None = None) -> Health:
    """Return the health of embeddings (B, D); ``target_entropy`` is a share of the largest possible one."""
    uniform = target_entropy is not None and target_entropy > UNIFORM
    x = F.normalize(embedding.float(), dim=1)
    x = x - x.mean(0)
    full = max(1, min(len(x) - 1, x.shape[1]))
    if not bool(torch.isfinite(x).all()):
        return Health(0.0, 1.0, full, uniform)
    std = float(x.square().mean(0).sqrt().mean() * math.sqrt(x.shape[1]))
    values = torch.linalg.svdvals(x)
    if float(values.sum()) < 1e-6:
        return Health(std, 1.0, full, uniform)
    p = values / values.sum()
    return Health(std, float(torch.exp(-(p * (p + 1e-12).log()).sum())), full, uniform)


REMEDY = (
    "raise --batch-size or the number of prototypes, lower the learning rate, or strengthen the augmentation; "
    "with teachers and queues, see the method's section of the spec"
)
