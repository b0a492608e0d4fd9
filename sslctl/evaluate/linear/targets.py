"""Linear evaluation on targets that are no classes: independent logistic regressions, or ridge regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import DataError
from ..features.extract import FeatureSet
from ..targets import Table, TargetScore, score_targets
from .logistic import HELD_OUT, L2, Linear, Regression, split

Fit = Callable[[float, Linear | None], Linear]


def linear_targets(
    train: FeatureSet, test: FeatureSet, table: Table, l2s: Sequence[float] = L2, seed: int = 0
) -> TargetScore:
    """Score of linear functions of standardised frozen features; ``labels`` of both sets are rows of ``table``.

    Of ``l2s`` the penalty with the lowest loss on a seeded fifth of the *training* set is taken (cross-entropy of
    labels, squared error of numbers in units of their deviation); then all of it is fitted. Raises DataError where
    there are too few images.
    """
    if len(train.x) < 5:
        raise DataError(f"{train.name}: {len(train.x)} images with targets are too few to choose a penalty by")
    y = table.values[train.labels]
    many = table.kind == "multilabel"
    mean, scale = (torch.zeros(y.shape[1]), torch.ones(y.shape[1])) if many else (y.mean(0), _deviation(y))
    z = (y - mean) / scale
    fit_part, held_out = split(torch.zeros(len(y), dtype=torch.int64), HELD_OUT, seed)
    solve = _solver(train.x[fit_part], z[fit_part], many)
    tried: dict[str, float] = {}
    start: Linear | None = None
    for l2 in sorted(l2s, reverse=True):
        start = solve(l2, start)
        logits, own = start(train.x[held_out]), z[held_out]
        loss = F.binary_cross_entropy_with_logits(logits, own) if many else F.mse_loss(logits, own)
        tried[f"{l2:g}"] = float(loss)
    best = min(tried, key=lambda key: tried[key])
    model = _solver(train.x, z, many)(float(best), None)
    protocol = {
        "name": "linear",
        "targets": table.kind,
        "solver": "lbfgs" if many else "ridge",
        "l2": float(best),
        "chosen_on": "training images held out",
        "held_out": len(held_out),
        "held_out_loss": tried,
        "seed": seed,
    }
    return score_targets(model(test.x) * scale + mean, table.values[test.labels], table, len(y), protocol)


def _deviation(y: Tensor) -> Tensor:
    deviation = y.std(0, correction=0)
    return torch.where(deviation > 0, deviation, 1.0)


def _solver(x: Tensor, y: Tensor, many: bool) -> Fit:
    if many:
        regression = Regression(x, y, y.shape[1])
        return lambda l2, start: regression.fit(l2, start)[0]
    spectrum = _spectrum(x, y)
    return lambda l2, start: _ridge(spectrum, l2)


class _Spectrum(NamedTuple):
    """What ridge regression of any penalty is made of: one decomposition of the features' covariance."""

    mean: Tensor
    scale: Tensor
    values: Tensor
    vectors: Tensor
    moment: Tensor
    bias: Tensor


def _spectrum(x: Tensor, y: Tensor) -> _Spectrum:
    variance, mean = torch.var_mean(x, 0, correction=0)
    scale = torch.where(variance > 1e-12 * variance.max(), variance.sqrt(), 1.0)
    z = (x - mean) / scale
    values, vectors = torch.linalg.eigh((z.T @ z / len(z)).double())
    moment = (z.T @ (y - y.mean(0)) / len(z)).double()  # (d, C)
    return _Spectrum(mean, scale, values.clamp_min(0), vectors, moment, y.mean(0))


def _ridge(s: _Spectrum, l2: float) -> Linear:
    """Solve for the least mean of squared error / 2, plus l2 / 2 |weight|^2."""
    weight = s.vectors @ ((s.vectors.T @ s.moment) / (s.values + l2)[:, None])  # (d, C)
    return Linear(s.mean, s.scale, weight.T.to(s.mean).contiguous(), s.bias)
