"""Linear evaluation on frozen features: logistic regression by L-BFGS, its penalty chosen within the training set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .features import Features, check_pair
from .score import Score, join, judge, ranks, score

L2 = (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
WITHOUT_CHOICE = 1e-2  # where no image can be held out
PATIENCE = 2  # weaker penalties in a row that do worse on the held-out part end the search
HELD_OUT = 0.2
ITERATIONS = 200
TOLERANCE = 1e-4
ROUGHLY = 1e-3  # enough to tell penalties apart
BUDGET = 64 << 20  # bytes of logits held at a time


class Linear(NamedTuple):
    """A classifier of features x: (x - mean) / scale @ weight.T + bias."""

    mean: Tensor  # (d,)
    scale: Tensor  # (d,)
    weight: Tensor  # (C, d)
    bias: Tensor  # (C,)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, (x - self.mean) / self.scale, self.weight.T)


def linear(train: Features, test: Features, l2s: Sequence[float] = L2, seed: int = 0) -> Score:
    """Score of a linear classifier on frozen features.

    Minimises mean cross-entropy + l2 / 2 |weight|^2 on standardised features. Of ``l2s`` the one that does best on a
    seeded, stratified fifth of the *training* set is taken, and the classifier fitted anew on all of it; the test set
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
    verdict = join([judge(model(part), own) for part, own in _parts(test.x, test.labels, classes)])
    protocol = {
        "name": "linear",
        "solver": "lbfgs",
        "l2": l2,
        "held_out": len(held_out),
        "held_out_top1": tried,
        "seed": seed,
    }
    return score(verdict, len(train.x), classes, protocol, notes=tuple(notes))


def choose_l2(
    x: Tensor, y: Tensor, fit_part: Tensor, held_out: Tensor, classes: int, l2s: Sequence[float]
) -> tuple[float, dict[str, float], Linear]:
    """The penalty with the best top-1 on ``held_out`` (then the lowest loss), the top-1 of all tried, and the fit.

    Penalties are tried from the strongest, each fit starting from the last one's.
    """
    tried: dict[str, float] = {}
    best: tuple[tuple[float, float], float, Linear] | None = None
    start, worse = None, 0
    for l2 in sorted(l2s, reverse=True):
        start, _ = fit(x[fit_part], y[fit_part], classes, l2, start, ROUGHLY)
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
    """The regression of ``y`` (n,) on ``x`` (n, d) with penalty ``l2``, and whether it converged.

    ``tolerance`` is the largest slope of the loss that ends the search, as in scikit-learn (there 1e-4 as well).
    """
    mean, scale = x.mean(0), x.std(0, correction=0)
    scale = torch.where(scale > 1e-6 * scale.max(), scale, 1.0)
    z = (x - mean) / scale
    weight = x.new_zeros(classes, x.shape[1]) if start is None else start.weight.clone()
    bias = x.new_zeros(classes) if start is None else start.bias.clone()

    def loss() -> Tensor:
        """Sets the gradients by hand: autograd would hold all logits at once."""
        total, weight.grad, bias.grad = x.new_zeros(()), l2 * weight, torch.zeros_like(bias)
        for part, own in _parts(z, y, classes):
            log_p = torch.addmm(bias, part, weight.T).log_softmax(1)  # (b, C)
            total -= log_p.gather(1, own[:, None]).sum() / len(z)
            error = log_p.exp_()
            error[torch.arange(len(own), device=own.device), own] -= 1
            weight.grad.addmm_(error.T, part, alpha=1 / len(z))
            bias.grad.add_(error.sum(0), alpha=1 / len(z))
        return total + l2 / 2 * weight.square().sum()

    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ITERATIONS,
        max_eval=2 * ITERATIONS,
        history_size=10,
        tolerance_grad=tolerance,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )
    solver.step(loss)  # type: ignore[no-untyped-call]
    done = solver.state[weight]["n_iter"] < ITERATIONS
    return Linear(mean, scale, weight.detach(), bias.detach()), done


def split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of images to fit on and of held-out ones: ``share`` of each class, at least one where it has two."""
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
