"""How a spec fits the data and the length of the run: what follows from its numbers, and what is known to fail."""

from __future__ import annotations

import math
from typing import Any

from .schema import BackboneSpec, Spec

LOOKS_BACK = 0.2  # of the run, at most, for a teacher's average


def derivation(spec: Spec, images: int) -> list[str]:
    """What follows from the spec for so many ``images``: learning rate; what a teacher, queue or prototype covers."""
    p, batch = spec.method_params(), spec.run.batch_size
    total = steps(spec, images)
    optim = spec.optim
    rule = {"linear": f" x {batch}/256", "sqrt": f" x sqrt({batch}/256)", "none": ""}[optim.lr_scaling]
    factor = {"linear": batch / 256, "sqrt": math.sqrt(batch / 256), "none": 1.0}[optim.lr_scaling]
    lines = [f"learning rate {optim.lr * factor:.4g} = {optim.lr:g}{rule}"]
    if (momentum := _momentum(p)) is not None and momentum < 1:
        lines.append(
            f"the teacher averages over about {1 / (1 - momentum):.0f} of {total} steps (momentum {momentum:g})"
        )
    if queue := min(p.get("queue", 0), images):
        lines.append(f"the queue holds {queue / batch:.3g} batches, {queue / images:.0%} of the images")
    if spec.method.name == "barlow-twins":
        others = p["out"] - 1
        weight = p["redundancy"] * others
        lines.append(f"redundancy {p['redundancy']:g} x {others} other outputs: {weight:.2g} to 1 (the paper's 42)")
    if clusters := _clusters(p):
        lines.append(
            f"{clusters} prototypes: {images / clusters:.3g} images and {batch / clusters:.2g} of a batch to each"
        )
    return lines


def warnings(spec: Spec, images: int) -> list[str]:
    """Combinations that are known to fail, each with what to do."""
    p, name, batch = spec.method_params(), spec.method.name, spec.run.batch_size
    total = steps(spec, images)
    epochs = total * batch / images
    found = []
    queue, clusters, momentum = p.get("queue", 0), _clusters(p), _momentum(p)
    if queue > images:
        found.append(f"method.queue {queue} is more than the {images} images, and cut to that; {images // 4} is enough")
    if momentum is not None and momentum < 1 and 1 / (1 - momentum) > LOOKS_BACK * total:
        better = max(0.0, 1 - 1 / max(1.0, LOOKS_BACK / 2 * total))
        found.append(
            f"method.momentum {momentum:g}: the teacher averages over {1 / (1 - momentum):.0f} steps in a run of "
            f"{total}, so it stays near its random start; for example --set method.momentum={better:.2g}"
        )
    if name == "swav" and clusters > batch + queue:
        found.append(
            f"method.prototypes {clusters}: more than the {batch + queue} images assigned at a time, which cannot use "
            f"them equally: the loss stays at ln {clusters}; at most {batch + queue}, or a queue"
        )
    elif clusters > images:
        found.append(f"method.prototypes {clusters}: more than the {images} images; {max(2, images // 4)} are enough")
    for key in ("freeze_prototypes_epochs", "freeze_last_layer_epochs"):
        if p.get(key, 0) >= epochs:
            found.append(f"method.{key} {p[key]:g}: the prototypes never move in {epochs:.2g} epochs; set it to 0")
    if name == "deepcluster-v2" and epochs <= 1:
        found.append("method deepcluster-v2: the first epoch only fills the memory, and there is no second")
    if name == "cpc" and spec.backbone.arch.startswith("resnet") and not _group_normed(spec.backbone):
        found.append(
            f"backbone.arch {spec.backbone.arch}: its batch norm tells patches of an image by each other, which spares "
            "CPC the learning; for example --set backbone.args.norm_layer=groupnorm"
        )
    if spec.optim.warmup_epochs >= epochs:
        found.append(
            f"optim.warmup_epochs {spec.optim.warmup_epochs:g}: the learning rate is still rising when the run of "
            f"{epochs:.2g} epochs ends; for example --set optim.warmup_epochs={epochs / 10:.2g}"
        )
    return found


def steps(spec: Spec, images: int) -> int:
    """Length of the run in steps."""
    return spec.run.steps or max(1, round((spec.run.epochs or 100) * (images // spec.run.batch_size)))


def _group_normed(backbone: BackboneSpec) -> bool:
    return "_gn" in backbone.arch or "norm_layer" in backbone.args


def _momentum(params: dict[str, Any]) -> float | None:
    """Of the teacher, where there is one, at the start."""
    schedule = params.get("momentum")
    return float(schedule["base"]) if isinstance(schedule, dict) else None


def _clusters(params: dict[str, Any]) -> int:
    count = params.get("prototypes", 0)
    return max(count) if isinstance(count, list) else int(count)
