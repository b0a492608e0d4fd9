"""Scores: top-1 and top-5, on how many images, by which protocol, with which interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Z95 = 1.959963984540054  # two-sided 95 % of a normal distribution
RESAMPLES = 1000


class Predictions(NamedTuple):
    """The prediction for each test image, in their order; for several draws of labels, one draw after the other."""

    rank: Tensor  # (n,) classes that came before the right one
    predicted: Tensor  # (n,) the class that came first
    label: Tensor  # (n,) the right one


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
    predictions: Predictions | None = field(default=None, repr=False, compare=False)
    retrieval: Mapping[str, Any] | None = None

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
        } | ({} if self.retrieval is None else {"retrieval": dict(self.retrieval)})

    def __str__(self) -> str:
        low, high = self.interval
        return f"top-1 {100 * self.top1:.1f} % ({100 * low:.1f} to {100 * high:.1f}), top-5 {100 * self.top5:.1f} %"


def ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Return how many classes come before the right one: (n, C), (n,) -> (n,).

    Of classes with equal scores the one with the lower number comes first. Scores that are not numbers rank last: a
    head that diverged is wrong, not right.
    """
    own = scores.gather(1, labels[:, None])  # (n, 1)
    before = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]
    rank = ((scores > own) | ((scores == own) & before)).sum(1)
    return rank.masked_fill(scores.isnan().any(1), scores.shape[1])


def judge(scores: Tensor, labels: Tensor) -> Predictions:
    """Return the predictions that scores (n, C) make for images of classes ``labels`` (n,)."""
    return Predictions(ranks(scores, labels), scores.argmax(1), labels)


def join(parts: Sequence[Predictions]) -> Predictions:
    """Return predictions for consecutive images as one."""
    return Predictions(*(torch.cat(part) for part in zip(*parts, strict=True)))


def score(
    predictions: Predictions,
    n_train: int,
    classes: int,
    protocol: Mapping[str, Any],
    first: int = 5,
    notes: tuple[str, ...] = (),
) -> Score:
    """Return the score of ``predictions``; top-5 looks at the ``first`` at most."""
    n = len(predictions.rank)
    top1, top5 = int((predictions.rank < 1).sum()) / n, int((predictions.rank < min(5, first)).sum()) / n
    return Score(top1, top5, n_train, n, classes, protocol, notes, predictions)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a probability that came true in a ``share`` of ``n`` trials (Wilson, 1927)."""
    z2 = Z95 * Z95 / n
    middle = (share + z2 / 2) / (1 + z2)
    half = Z95 / (1 + z2) * math.sqrt(share * (1 - share) / n + z2 / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(values: Tensor, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean of ``values`` (n,): percentiles over RESAMPLES, with ``seed``."""
    rng, sample = np.random.default_rng(seed), values.double().numpy()
    means = [sample[rng.integers(len(sample), size=len(sample))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)
