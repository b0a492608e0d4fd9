"""How far two orders of the same things agree: Spearman's rho and Kendall's tau, ties and all."""

from __future__ import annotations

import math
from collections.abc import Sequence


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Pearson's correlation of ranks, equal values sharing their mean rank; NaN where one of them is constant."""
    x, y = _ranks(a), _ranks(b)
    mean = (len(x) + 1) / 2
    x, y = [v - mean for v in x], [v - mean for v in y]
    norm = math.sqrt(sum(v * v for v in x) * sum(v * v for v in y))
    return sum(v * w for v, w in zip(x, y, strict=True)) / norm if norm else math.nan


def kendall(a: Sequence[float], b: Sequence[float]) -> float:
    """tau-b: pairs in the same order less pairs in opposite order, over the pairs that are not tied in either."""
    pairs = [(_sign(a[i] - a[j]), _sign(b[i] - b[j])) for i in range(len(a)) for j in range(i)]
    norm = math.sqrt(sum(x * x for x, _ in pairs) * sum(y * y for _, y in pairs))
    return sum(x * y for x, y in pairs) / norm if norm else math.nan


def _ranks(values: Sequence[float]) -> list[float]:
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)
