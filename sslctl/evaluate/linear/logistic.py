"""Linear evaluation on frozen features: logistic regression by L-BFGS, its penalty chosen within the training set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...runtime.device import fast_matmul
from ..features.extract import FeatureSet, check_pair
from ..score import Score, join, judge, ranks, score
from .lbfgs import minimise

L2 = (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
WITHOUT_CHOICE = 1e-2  # where no image can be held out
PATIENCE = 2  # weaker penalties in a row that do worse on the held-out part end the search
HELD_OUT = 0.2
ITERATIONS = 200
TOLERANCE = 3e-2
ROUGHLY = 1e-1  # enough to tell penalties apart
BUDGET = 64 << 20  # bytes of logits held at a time


class Linear(NamedTuple):
    """A classifier of features x: (x - mean) / scale @ weight.T + bias."""

    mean: Tensor  # (d,)
    scale: Tensor  # (d,)
    weight: Tensor  # (C, d)
    bias: Tensor  # (C,)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, (x - self.mean) / self.scale, self.weight.T)


def linear(train: FeatureSet, test: FeatureSet, l2s: Sequence[float] = L2, seed: int = 0) -> Score:
    """Score of a linear classifier on frozen features.

    Minimises mean cross-entropy + l2 / 2 |weight|^2 on standardised features. Of ``l2s`` the one that does best on a
    seeded, stratified fifth of the *training* set is taken, and the classifier fitted again on all of it; the test set
    decides nothing. Raises DataError where the sets do not go together.
    """
    check_pair(train, test)
    classes = len(train.classes)
    fit_part, held_out = split(train.labels, HELD_OUT, seed)
    notes: list[str] = []
    l2, start = WITHOUT_CHOICE, None
    tried: dict[str, float] = {}
    if len(held_out):
        l2, tried, start = choose_l2(train.x, train.labels, fit_part, held_out, classes, l2s)
    else:
        notes.append(f"no class has an image to spare for choosing the penalty; {WITHOUT_CHOICE:g} is taken")
    model, done = fit(train.x, train.labels, classes, l2, start)
    if not done:
        notes.append(f"L-BFGS used all its {ITERATIONS} iterations")
    predictions = join([judge(model(part), own) for part, own in _parts(test.x, test.labels, classes)])
    protocol = {
        "name": "linear",
        "solver": "lbfgs",
        "l2": l2,
        "chosen_on": "training images held out" if len(held_out) else "nothing: no image to spare",
        "held_out": len(held_out),
        "held_out_top1": tried,
        "seed": seed,
    }
    return score(predictions, len(train.x), classes, protocol, notes=tuple(notes))


def choose_l2(
    x: Tensor, y: Tensor, fit_part: Tensor, held_out: Tensor, classes: int, l2s: Sequence[float]
) -> tuple[float, dict[str, float], Linear]:
    """Return the penalty with the best top-1 on ``held_out``, the top-1 of all tried, and the fit.

    Penalties are tried from the strongest, each fit starting from the last one's.
    """
    tried: dict[str, float] = {}
    best: tuple[tuple[float, float], float, Linear] | None = None
    start, worse = None, 0
    regression = Regression(x[fit_part], y[fit_part], classes)
    for l2 in sorted(l2s, reverse=True):
        start, _ = regression.fit(l2, start, ROUGHLY)
        logits, own = start(x[held_out]), y[held_out]
        top1 = float((ranks(logits, own) == 0).double().mean())
        quality = (top1, -float(torch.nn.functional.cross_entropy(logits, own)))
        tried[f"{l2:g}"] = top1
        if best is None or quality > best[0]:
            best, worse = (quality, l2, start), 0
        elif (worse := worse + 1) == PATIENCE:
            break
    assert best is not None
    return best[1], tried, best[2]


def fit(
    x: Tensor, y: Tensor, classes: int, l2: float, start: Linear | None = None, tolerance: float = TOLERANCE
) -> tuple[Linear, bool]:
    """The regression of ``y`` on ``x`` (n, d) with penalty ``l2``, and whether it converged; see ``Regression``."""
    return Regression(x, y, classes).fit(l2, start, tolerance)


class Regression:
    """Mean cross-entropy + l2 / 2 |weight|^2 on standardised features, for one penalty after another.

    ``y`` (n,) holds the class of each image (softmax); or ``y`` (n, C) holds 0 or 1 for each of C labels, which are
    told independently of each other (a sigmoid each, summed).
    """

    def __init__(self, x: Tensor, y: Tensor, classes: int) -> None:
        variance, self.mean = torch.var_mean(x, 0, correction=0)
        scale = variance.sqrt()
        self.scale = torch.where(scale > 1e-6 * scale.max(), scale, 1.0)
        self.z, self.y, self.classes = (x - self.mean) / self.scale, y, classes
        with fast_matmul(x):
            self.covariance = self.z.T @ self.z / len(x)  # (d, d)

    def fit(self, l2: float, start: Linear | None = None, tolerance: float = TOLERANCE) -> tuple[Linear, bool]:
        """Return the classifier, and whether it was found within ITERATIONS.

        ``tolerance`` is the largest slope that ends the search, as a share of the largest of a classifier of zeros.
        """
        begin = self.z.new_zeros(self.classes, self.z.shape[1] + 1)  # the last column is the bias
        if start is not None:
            begin = torch.cat([start.weight, start.bias[:, None]], 1)
        curvature = 0.0

        def loss(weights: Tensor) -> tuple[float, Tensor]:
            nonlocal curvature
            value, gradient, curvature = self._loss(weights)
            gradient[:, :-1] += l2 * weights[:, :-1]
            return value + l2 / 2 * float(weights[:, :-1].square().sum()), gradient

        found, done = minimise(
            loss, begin, lambda: self._preconditioner(curvature, l2), tolerance * self._steepest, ITERATIONS
        )
        return Linear(self.mean, self.scale, found[:, :-1].contiguous(), found[:, -1].contiguous()), done

    def _loss(self, weights: Tensor) -> tuple[float, Tensor, float]:
        """Return value, gradient, and mean curvature in a logit, by hand: autograd would hold all logits."""
        weight, bias = weights[:, :-1].contiguous(), weights[:, -1]
        into, sums, loss, curvature = torch.zeros_like(weight), torch.zeros_like(bias), 0.0, 0.0
        for part, own in _parts(self.z, self.y, self.classes):
            with fast_matmul(part):
                logits = torch.addmm(bias, part, weight.T)  # (b, C)
                if own.ndim == 1:
                    logits = logits.log_softmax(1)
                    loss -= float(logits.gather(1, own[:, None]).sum())
                    error = logits.exp_()
                    curvature += len(own) - float(error.square().sum())
                    error[torch.arange(len(own), device=own.device), own] -= 1
                else:
                    loss += float(F.binary_cross_entropy_with_logits(logits, own, reduction="sum"))
                    error = logits.sigmoid_()
                    curvature += float((error - error.square()).sum())
                    error -= own
                into.addmm_(error.T, part)
            sums += error.sum(0)
        n = len(self.z)
        return loss / n, torch.cat([into, sums[:, None]], 1).div_(n), curvature / n / self.classes

    @cached_property
    def _steepest(self) -> float:
        """The largest slope where all weights are zero and all classes as likely."""
        labels = self.y if self.y.ndim == 2 else F.one_hot(self.y, self.classes).to(self.z)
        at = 0.5 if self.y.ndim == 2 else 1 / self.classes
        with fast_matmul(self.z):
            slopes = labels.T @ self.z  # the features' mean is zero
        return float(torch.cat([slopes.abs().flatten(), (at * len(labels) - labels.sum(0)).abs()]).max()) / len(labels)

    def _preconditioner(self, curvature: float, l2: float) -> Callable[[Tensor], Tensor]:
        """Return what multiplies a gradient by the inverse of curvature x covariance + l2 (Boehning 1992)."""
        curve = curvature * self.covariance
        damping = l2 + 1e-5 * float(curve.abs().sum(1).max())  # rounding makes the least eigenvalues uncertain
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(curve + damping * torch.eye(len(curve)).to(curve)))
        of_bias = 1 / max(curvature, 1e-6)

        def precondition(gradient: Tensor) -> Tensor:
            with fast_matmul(gradient):
                return torch.cat([gradient[:, :-1] @ inverse, of_bias * gradient[:, -1:]], 1)

        return precondition


def split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split positions into images to fit on and held-out ones: ``share`` of each class, at least one of two."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    keep, out = [], []
    for c in torch.unique(labels):
        own = order[labels[order] == c]
        n = max(int(share * len(own)), int(len(own) > 1))
        out.append(own[:n])
        keep.append(own[n:])
    return torch.cat(keep), torch.cat(out)


def _parts(x: Tensor, y: Tensor, classes: int) -> list[tuple[Tensor, Tensor]]:
    rows = max(1, BUDGET // (classes * x.element_size()))
    return list(zip(torch.split(x, rows), torch.split(y, rows), strict=True))
