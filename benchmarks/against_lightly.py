"""Each method against lightly's parts for it, all else the same: kNN top-1 over seeds, as a Markdown table on stdout.

    python benchmarks/against_lightly.py TRAIN VAL [--methods byol dino] [--seeds 0 1 2] [--epochs 10]
        [--multi-crop 2x32] [--channels 64 128 256 512] [--layers 2 2 2 2] [--batch-size 128] [--out FOLDER]

TRAIN and VAL are folders with a folder for each class. Backbone and its first weights, views, order of the images,
batches, epochs, optimizer, learning rate and its schedule are the same for both; heads have the same widths. lightly's
heads, losses, momentum updates and memory bank are put together as in its own examples and its ImageNet benchmarks. Our
side is the method as it is, theirs steps through the same loop. Runs that are finished in --out are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightly_methods import THEIRS
from torch import nn

from sslctl.backbones import build_backbone
from sslctl.engine.loop import Training, seed_step, take_step
from sslctl.engine.optimizers import build_optimizer
from sslctl.engine.setup import RunInputs, build, image_size, open_inputs, use_channels_last
from sslctl.evaluate.baselines import random_backbone
from sslctl.evaluate.features.extract import extract
from sslctl.evaluate.knn.vote import knn
from sslctl.evaluate.score import Score, wilson
from sslctl.methods import METHODS
from sslctl.methods.recipes import SMALL
from sslctl.methods.resolve import resolve
from sslctl.schedule import Step
from sslctl.views.evaluation import EvalTransform


def with_lightly(t: Training, inputs: RunInputs) -> Training:
    """``t`` with lightly's parts for its method, from the same first weights of the backbone."""
    torch.manual_seed(t.spec.run.seed)
    backbone = build_backbone(t.spec.backbone, image_size(inputs.plan))
    method = THEIRS[t.spec.method.name](t.method.params, backbone).to(t.device)
    use_channels_last(method)
    return replace(t, method=method, model=method, optimizer=build_optimizer(t.spec.optim, method))


def train(t: Training) -> float:
    """The run's loop without checkpoints; the mean loss of its last epoch."""
    t.method.train()
    found = []
    for i, batch in enumerate(t.loader(start_step=0)):
        step = Step(i, t.total, t.per_epoch)
        seed_step(t.spec.run.seed, i)
        found.append(float(take_step(t, t.augment(batch, t.device), step).loss.detach()))
    return statistics.mean(found[-t.per_epoch :])


def scored(encoder: nn.Module, inputs: RunInputs, device: torch.device) -> Score:
    transform = EvalTransform(image_size(inputs.plan), inputs.plan.mean, inputs.plan.std)
    sets = [extract(encoder, source, transform, device=device) for source in (inputs.train, inputs.val)]
    return knn(*sets, [20], [0.07])[0]


def measure(method: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """kNN top-1 of both sides and of random weights; kept in a file, so that it is not computed again."""
    kept: Path = given.out / f"{method}-{seed}.json"
    if not kept.is_file():
        sizes = {key: getattr(given, key) for key in ("channels", "layers") if getattr(given, key)}
        user = {
            "data": {"path": str(given.train), "val": str(given.val)},
            "views": {"multi_crop": given.multi_crop},
            "backbone": {"arch": given.arch, "args": sizes},
            "method": {"name": method} | EQUAL.get(method, {}),
            "run": {"epochs": given.epochs, "batch_size": given.batch_size, "seed": seed, "threads": given.threads},
        }
        inputs = open_inputs(resolve(user, SMALL))
        t = build(inputs)
        random = random_backbone(t.spec.backbone, image_size(inputs.plan), seed).to(t.device)
        found: dict[str, Any] = {"random": scored(random, inputs, t.device).top1, "spec": t.spec.dump()}
        for name, side in (("ours", t), ("lightly", with_lightly(t, inputs))):
            loss = train(side)
            score = scored(side.method.encoder(), inputs, t.device)
            found |= {name: score.top1, f"{name}_loss": loss, "n_test": score.n_test}
        given.out.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found))
    result: dict[str, Any] = json.loads(kept.read_text())
    return result


def row(method: str, runs: list[dict[str, Any]]) -> str:
    """Means over seeds with the 95 % interval of the test images; the mean difference, with that of the seeds."""
    mean = {side: statistics.mean(run[side] for run in runs) for side in ("ours", "lightly", "random")}
    cells = [METHODS[method].title]
    for side in ("ours", "lightly"):
        low, high = wilson(mean[side], runs[0]["n_test"])
        cells.append(f"{100 * mean[side]:.1f} ({100 * low:.1f}–{100 * high:.1f})")
    differences = [100 * (run["ours"] - run["lightly"]) for run in runs]
    half = T95[len(runs)] * statistics.stdev(differences) / len(runs) ** 0.5 if len(runs) in T95 else float("nan")
    cells += [f"{statistics.mean(differences):+.1f} ± {half:.1f}", ", ".join(f"{d:+.1f}" for d in differences)]
    return f"| {' | '.join([*cells, format(100 * mean['random'], '.1f')])} |"


EQUAL: dict[str, dict[str, Any]] = {"moco-v2": {"symmetric": False, "norm_groups": 1}}
"""Where the small recipe does what lightly's parts on one process do not."""

T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Student's t for a 95 % interval of the mean of so many differences."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(THEIRS), choices=list(THEIRS), metavar="METHOD")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=30)
    parser.add_argument("--multi-crop", default="2x32", help="two views")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--channels", nargs=4, type=int, help="of the stages; by default the small recipe's")
    parser.add_argument("--layers", nargs=4, type=int, help="blocks of the stages; by default the small recipe's")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/against-lightly"))
    given = parser.parse_args()
    head = ["method", "ours, %", "lightly, %", "difference", "each seed", "random weights, %"]
    sys.stdout.write(f"| {' | '.join(head)} |\n{'|---' * len(head)}|\n")
    for seed in given.seeds:  # a seed at a time, so that an interrupted table has all methods
        for method in given.methods:
            measure(method, seed, given)
    for method in given.methods:
        sys.stdout.write(row(method, [measure(method, seed, given) for seed in given.seeds]) + "\n")


if __name__ == "__main__":
    main()
