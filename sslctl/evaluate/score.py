"""What an evaluation says: top-1 and top-5, on how many images, by which protocol, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Z95 = 1.959963984540054  # two-sided 95 % of a normal distribution


@dataclass(frozen=True)
class Score:
    """Shares of test images, in [0, 1], whose class came first, or among the first five."""

    top1: float
    top5: float
    n_train: int
    n_test: int
    classes: int
    protocol: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of ``top1`` over test images of the same kind; it does not cover another training seed."""
        return wilson(self.top1, self.n_test)

    def as_dict(self) -> dict[str, Any]:
        return {
            "top1": self.top1,
            "top5": self.top5,
            "interval": list(self.interval),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "classes": self.classes,
            "protocol": dict(self.protocol),
        }

    def __str__(self) -> str:
        low, high = self.interval
        return f"top-1 {100 * self.top1:.1f} % ({100 * low:.1f} to {100 * high:.1f}), top-5 {100 * self.top5:.1f} %"


def ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the right one: (n, C), (n,) -> (n,).

    Of classes with equal scores the one with the lower number comes first. Scores that are not numbers rank last: a
    head that diverged is wrong, not right.
    """
    own = scores.gather(1, labels[:, None])  # (n, 1)
    before = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]
    rank = ((scores > own) | ((scores == own) & before)).sum(1)
    return rank.masked_fill(scores.isnan().any(1), scores.shape[1])


def score(
    rank: Tensor, n_train: int, classes: int, protocol: Mapping[str, Any], first: int = 5, notes: tuple[str, ...] = ()
) -> Score:
    """The score of right classes at these ``rank``s, (n,), counted from 0; top-5 looks at the ``first`` at most."""
    n = len(rank)
    top1, top5 = int((rank < 1).sum()) / n, int((rank < min(5, first)).sum()) / n
    return Score(top1, top5, n_train, n, classes, protocol, notes)


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a probability of which ``share`` was seen in ``n`` trials (Wilson, 1927)."""
    z2 = Z95 * Z95 / n
    middle = (share + z2 / 2) / (1 + z2)
    half = Z95 / (1 + z2) * math.sqrt(share * (1 - share) / n + z2 / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)
