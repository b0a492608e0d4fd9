"""Agreement of two orders: as scipy computes it, ties included."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sslctl.evaluate.label_free.correlation import kendall, spearman


@pytest.mark.parametrize("seed", range(6))
def test_as_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, noise = rng.integers(0, 12 - seed, (2, 9))  # more and more ties
    a, b = x.tolist(), (noise + x * (seed % 3 - 1)).tolist()
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)


def test_known_orders() -> None:
    assert spearman([1, 2, 3], [2, 4, 9]) == kendall([1, 2, 3], [2, 4, 9]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == kendall([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert kendall([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3) and spearman([1, 2, 3], [1, 3, 2]) == pytest.approx(
        0.5
    )
    assert math.isnan(spearman([1, 1], [1, 2])) and math.isnan(kendall([1, 1], [1, 2]))
