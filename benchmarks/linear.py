"""Linear evaluation on cached features: 13 learning rates against one, L-BFGS against 100 epochs of SGD; as ratios.

    OMP_NUM_THREADS=1 python benchmarks/linear.py            # about half a minute; one JSON object a line

What is compared runs alternately in one process on one thread; process-CPU time, and of repetitions the smallest:
ratios carry over to other machines where seconds do not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from turns import fastest

from sslctl.evaluate.linear.logistic import HELD_OUT, L2, Linear, choose_l2, fit, split
from sslctl.evaluate.linear.protocols import DINOV2_RATES
from sslctl.evaluate.linear.sgd_heads import Heads

Set = tuple[Tensor, Tensor]


def clustered(n: int, width: int, classes: int, seed: int) -> Set:
    """Features of uneven scales with a nuisance that all classes share, as those of a frozen encoder are."""
    shared = torch.Generator().manual_seed(classes)
    centres, nuisance = torch.randn(classes, width, generator=shared), torch.randn(32, width, generator=shared)
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=g)
    noise = torch.randn(n, width, generator=g) + 0.3 * torch.randn(n, 32, generator=g) @ nuisance
    return (0.28 * centres[labels] + noise) * torch.logspace(0.7, -0.7, width), labels


def one_by_one(train: Set, classes: int, rate: float, epochs: int, batch: int) -> nn.Linear:
    """What every linear evaluation does: nn.Linear, SGD with momentum, cosine by epoch."""
    x, y = train
    torch.manual_seed(0)
    head = nn.Linear(x.shape[1], classes)
    optimizer = torch.optim.SGD(head.parameters(), rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x)), batch):
            optimizer.zero_grad()
            F.cross_entropy(head(x[rows]), y[rows]).backward()
            optimizer.step()
        schedule.step()
    return head


def sweep(classes: int, repetitions: int) -> dict[str, object]:
    """Ten steps of 128 images each, with one rate as every linear evaluation has it, and with all."""
    x, y = clustered(1280, 384, classes, 1)
    heads = Heads(384, classes, DINOV2_RATES)

    def together() -> None:
        for rows in torch.split(torch.randperm(len(x)), 128):
            heads.step(x[rows], y[rows], 0.5)

    one, all_ = fastest(repetitions, lambda: one_by_one((x, y), classes, 0.01, 1, 128), together)
    return {"what": "13 rates / one nn.Linear", "classes": classes, "one_s": one, "ratio": all_ / one}


def solve(classes: int, n: int) -> Iterator[dict[str, object]]:
    """L-BFGS and SGD on the same standardised features; SGD has the better of two rates, and the quicker run's time."""
    x, y = clustered(n, 384, classes, 1)
    xv, yv = clustered(20000, 384, classes, 2)
    mean, scale = x.mean(0), x.std(0)
    standard, tested = (x - mean) / scale, (xv - mean) / scale
    seconds, accuracy = [], []
    for rate in (0.03, 0.3):
        before = time.process_time()
        head = one_by_one((standard, y), classes, rate, 100, 256)
        seconds.append(time.process_time() - before)
        accuracy.append(float((head(tested).argmax(1) == yv).double().mean()))
    found = {"classes": classes, "images": n, "sgd_s": min(seconds), "sgd_top1": max(accuracy)}
    keep, out = split(y, HELD_OUT, 0)

    def default() -> Linear:
        l2, _, start = choose_l2(x, y, keep, out, classes, L2)
        return fit(x, y, classes, l2, start)[0]

    solvers = {"one L-BFGS fit (L2 1e-3)": lambda: fit(x, y, classes, 1e-3)[0], "L2 path, choice and fit": default}
    for name, solver in solvers.items():
        before = time.process_time()
        model = solver()
        ratio = (time.process_time() - before) / min(seconds)
        top1 = float((model(xv).argmax(1) == yv).double().mean())
        yield {"what": f"{name} / 100 epochs of SGD", **found, "top1": top1, "ratio": ratio}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=10000)
    options.add_argument("--repetitions", type=int, default=60)
    given = options.parse_args()
    torch.set_num_threads(1)
    found = [sweep(classes, given.repetitions) for classes in (10, 100)]
    for line in [*found, *solve(100, given.images)]:
        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
