"""Moving a teacher and stepping AdamW, beside lightly's and torch's defaults: milliseconds in turns, and ratios.

    OMP_NUM_THREADS=1 python benchmarks/optim.py [--archs resnet50 vit_small_patch16_224]

lightly's momentum update is lightly.models.utils.update_momentum (pip install lightly); process-CPU time counts.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from statistics import median

import timm
import torch
from lightly.models.utils import update_momentum
from torch import nn

from sslctl.layers.encoder import Encoder
from sslctl.layers.teacher import EMA
from sslctl.profiling.limit import race


def adamw(net: nn.Module, **how: bool) -> Callable[[], object]:
    mine = copy.deepcopy(net)
    for p in mine.parameters():
        p.grad = torch.randn_like(p)
    return torch.optim.AdamW(mine.parameters(), 1e-4, **how).step


def teachers(net: Encoder) -> tuple[Callable[[], object], Callable[[], object]]:
    ema, teacher = EMA(net), copy.deepcopy(net).requires_grad_(False)
    return lambda: ema.update(net, 0.996), lambda: update_momentum(net, teacher, 0.996)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", nargs="+", default=["resnet50", "vit_small_patch16_224"])
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    sys.stdout.write("| encoder | what | ours, ms | theirs, ms | ratio |\n|---|---|---|---|---|\n")
    for arch in given.archs:
        net = Encoder(timm.create_model(arch, num_classes=0), nn.Identity())
        pairs = {"teacher": teachers(net), "AdamW": (adamw(net, fused=True), adamw(net))}
        for what, (ours, theirs) in pairs.items():
            found = race({"ours": ours, "theirs": theirs}, torch.device("cpu"), given.rounds, time.process_time)
            ratio = median(a / b for a, b in zip(found["ours"], found["theirs"], strict=True))
            cells = [f"{1000 * median(found[name]):.1f}" for name in ("ours", "theirs")]
            sys.stdout.write(f"| {arch} | {what} | {' | '.join(cells)} | {ratio:.2f} |\n")


if __name__ == "__main__":
    main()
