"""A training step beside the bare encoder on the same crops: the overhead of all else, as a ratio in one process.

    OMP_NUM_THREADS=1 python benchmarks/step.py --table                    the rows of docs/benchmarks.md
    OMP_NUM_THREADS=1 python benchmarks/step.py --table --lightly          in its own precision, beside lightly
    OMP_NUM_THREADS=1 python benchmarks/step.py dino --arch vit_tiny_patch16_224 --crops 2x96+4x48 --batch 16 \
        --set method.prototypes=65536

Bare: the forward and backward passes of the backbones over the same crops, and plain SGD (sslctl/profiling/limit.py).
Where views may share a forward or not (2x32), the faster of the two is the limit. Contenders take turns, A B C then
C B A; process-CPU time counts (wall time on an accelerator), and the ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch

from sslctl.backbones import build_backbone
from sslctl.engine.setup import Training, build, open_inputs
from sslctl.methods.base import Views
from sslctl.methods.resolve import resolve
from sslctl.profiling.estimate import noise_views
from sslctl.profiling.limit import EncoderOnly, Run, race, training_step
from sslctl.schedule import Step
from sslctl.spec.parsing import merge, parse_set

VIT = "vit_tiny_patch16_224"
DINO = ("method.norm_last_layer=true", "backbone.drop_path=0", "backbone.position=timm", "run.steps=100000")
SMALL_HEAD = ("method.hidden=512", "method.bottleneck=64")
HEADS = {  # as wide as a ResNet-18 asks for, not as the papers' ResNet-50
    "simclr": (),
    "byol": ("method.hidden=1024",),
    "moco-v2": ("method.queue=4096",),
    "simsiam": ("method.out=512", "method.bottleneck=128"),
    "barlow-twins": ("method.out=2048",),
    "vicreg": ("method.out=2048",),
}


def dino(prototypes: int, *more: str) -> tuple[str, str, str, int, tuple[str, ...]]:
    return ("dino", VIT, "2x96+4x48", 16, (*DINO, f"method.prototypes={prototypes}", *more))


ROWS = [
    dino(2048, *SMALL_HEAD),
    dino(8192),
    dino(65536),
    ("swav", "resnet18", "2x96+4x48", 16, ("method.queue=0",)),
    *((method, "resnet18", "2x32", 64, head) for method, head in HEADS.items()),
]


def training(method: str, arch: str, crops: str, batch: int, sets: Sequence[str], precision: str) -> Training:
    flags: dict[str, Any] = {
        "data": {"path": "demo"},
        "method": {"name": method},
        "backbone": {"arch": arch},
        "views": {"multi_crop": crops},
        "run": {"batch_size": batch, "precision": precision},
    }
    return build(open_inputs(resolve(merge(*map(parse_set, sets), flags))))


def lightlys(t: Training, views: Views) -> Run:
    """A step of lightly's example of the method in float32, with heads as wide as ours, on a fresh backbone."""
    from lightly_methods import THEIRS, crops_apart

    backbone = build_backbone(t.spec.backbone, t.method.student.backbone.image_size)
    method = crops_apart(THEIRS[t.spec.method.name](t.method.params, backbone)).to(t.device).train()
    params = [p for p in method.parameters() if p.requires_grad]
    adam = t.spec.optim.name == "adamw"
    optimizer = torch.optim.AdamW(params, 1e-4) if adam else torch.optim.SGD(params, 1e-4, momentum=0.9)
    step = Step(t.total // 2, t.total, t.per_epoch)

    def run() -> None:
        optimizer.zero_grad()
        method(views, step).loss.backward()
        method.after_backward(step)
        optimizer.step()

    return run


def measure(row: tuple[str, str, str, int, Sequence[str]], precision: str, rounds: int, lightly: bool) -> str:
    t = training(*row, precision)
    views = noise_views(t, t.spec.run.batch_size)
    contenders = {"ours": training_step(t, views), "grouped": EncoderOnly(t, views, grouped=True).step}
    if not views.locals:
        contenders["each"] = EncoderOnly(t, views, grouped=False).step
    if lightly:
        contenders["lightly"] = lightlys(t, views)
    clock = time.process_time if t.device.type == "cpu" else time.perf_counter
    found = race(contenders, t.device, rounds, clock)
    limit = min(found.keys() - {"ours", "lightly"}, key=lambda name: median(found[name]))
    ratio = median(a / b for a, b in zip(found["ours"], found[limit], strict=True))
    method, arch, crops, batch, _ = row
    what = f"{method} {getattr(t.method.params, 'prototypes', '') or ''}".strip()
    rate = batch / median(found["ours"])
    faster = median(b / a for a, b in zip(found["ours"], found["lightly"], strict=True)) if lightly else None
    cells = [what, arch, crops, str(batch), str(t.dtype)[6:], f"{rate:.0f}", f"{ratio:.2f}"]
    return f"| {' | '.join(cells + ([] if faster is None else [f'{faster:.2f}']))} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", nargs="?", default="dino")
    parser.add_argument("--table", action="store_true", help="every row of the table")
    parser.add_argument("--arch", default=VIT)
    parser.add_argument("--crops", default="2x96+4x48")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--set", action="append", default=[], help="section.key=value of the spec", dest="sets")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--lightly", action="store_true", help="beside lightly's step; precision auto")
    given = parser.parse_args()
    if given.table:
        rows = ROWS
    else:
        rows = [(given.method, given.arch, given.crops, given.batch, tuple(given.sets))]
    heads = ["method", "encoder", "views", "batch", "precision", "images/s", "step ÷ bare encoder"]
    heads += ["times faster than lightly"] * given.lightly
    sys.stdout.write(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|\n")
    for row in rows:
        if not given.lightly or row[0] != "vicreg":  # of which lightly has no example here
            sys.stdout.write(measure(row, "auto" if given.lightly else given.precision, given.rounds, given.lightly))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
