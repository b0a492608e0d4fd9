"""Fine-tuning: the whole network trained with labels, from an encoder or from random weights, and scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ...backbones import Backbone
from ...data.loader import Loader
from ...data.source import Source
from ...errors import DivergedError
from ...runs.checkpoint import write
from ...runs.meta import ImageSpec, Meta
from ...runtime.seeding import seed_step
from ...schedule import Schedule, Step
from ...views.augment import Augment
from ...views.recipe import ViewPlan, ViewSpec
from ..features.extract import extract
from ..score import Score
from ..targets import TargetScore
from .goals import Goal

POINTS = 50  # of the accuracy curve, at most


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune: AdamW, cosine after a warm-up, random crops and flips.

    ``lr`` is the peak of the head's rate at batch size 256; a layer's is ``layer_decay`` to the power of its distance
    from the head (BEiT, arXiv 2106.08254, appendix H). ``mixup`` and ``cutmix`` are the alphas of their Beta
    distributions (arXiv 1710.09412, 1905.04899), 0 for none; where both are given, each batch takes one of them.
    """

    epochs: float = 50
    batch_size: int = 128
    lr: float = 1e-3
    layer_decay: float = 0.75
    weight_decay: float = 0.05
    warmup_epochs: float = 5
    smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    seed: int = 0


class Classifier(nn.Module):
    """A backbone and a linear layer: (B, 3, H, W) -> (B, outputs)."""

    def __init__(self, backbone: Backbone, outputs: int) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(True)
        self.head = nn.Linear(backbone.dim, outputs)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x).pooled)
        return out


@dataclass(frozen=True)
class Task:
    """Labelled images to learn from and to test on, what they are normalised by, and the machine to do it on."""

    train: Source
    test: Source
    image: ImageSpec
    device: torch.device
    dtype: torch.dtype
    workers: int


Report = Callable[[dict[str, Any]], None]


def finetune(
    net: Classifier, task: Task, recipe: Recipe, goal: Goal, report: Report = lambda line: None
) -> Score | TargetScore:
    """Train ``net`` in place; the score of its last weights on the test images, of which none is chosen by.

    ``report`` hears a line for each point of the curve: epoch, step, loss, lr and the goal's key.
    A function of the weights, the images and ``recipe``. Raises DivergedError where the loss is not finite.
    """
    batch = min(recipe.batch_size, len(task.train))
    per_epoch = len(task.train) // batch
    total = max(1, round(recipe.epochs * per_epoch))
    every = max(per_epoch, math.ceil(total / POINTS))
    warmup = min(recipe.warmup_epochs, recipe.epochs / 4)
    schedule = Schedule(base=recipe.lr * batch / 256, warmup_epochs=warmup, per_epoch=False)
    optimizer = torch.optim.AdamW(list(groups(net.to(task.device), recipe)), lr=recipe.lr)
    scaler = torch.amp.GradScaler(task.device.type, enabled=task.dtype == torch.float16)
    batches = labelled_batches(task.train, crops(task.image), task, batch, total, recipe.seed)
    losses: list[Tensor] = []
    result: Score | TargetScore | None = None
    for index, (x, labels) in enumerate(batches):
        step = Step(index, total, per_epoch)
        seed_step(recipe.seed, index)
        for group in optimizer.param_groups:
            group["lr"] = schedule.at(step) * group["lr_scale"]
        x, target = mix(x, goal.targets(labels), recipe, index)
        with torch.autocast(task.device.type, task.dtype, enabled=task.dtype != torch.float32):
            loss = goal.loss(net.train()(x), target)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.detach())
        if (index + 1) % every == 0 or index + 1 == total:
            mean = float(torch.stack(losses).mean())
            if not math.isfinite(mean):
                raise DivergedError(f"the loss is {mean} at step {index + 1}", "lower --lr, or --precision fp32")
            losses, result = [], _test(net, task, recipe, goal)
            epoch = round((index + 1) / per_epoch, 4)
            line = {"step": index + 1, "epoch": epoch, "loss": mean, "lr": schedule.at(step)}
            report(line | {goal.key: result.as_dict()[goal.key]})
    assert result is not None
    return result


def groups(net: Classifier, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Return parameters of equal depth and decay; ``lr_scale`` falls by ``layer_decay`` with each layer below the head.

    Layers are those of ``Backbone.layer_depths``. Biases and norms (one axis or none) and position and class tokens are
    not decayed.
    """
    depth = {f"backbone.{name}": layer for name, layer in net.backbone.layer_depths().items()}
    top = max(depth.values()) + 1
    found: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, p in net.named_parameters():
        decayed = p.ndim > 1 and not name.endswith(("pos_embed", "cls_token", "reg_token"))
        found.setdefault((depth.get(name, top), decayed), []).append(p)
    for (layer, decayed), params in found.items():
        yield {
            "params": params,
            "lr_scale": recipe.layer_decay ** (top - layer),
            "weight_decay": recipe.weight_decay if decayed else 0.0,
        }


def mix(x: Tensor, target: Tensor, recipe: Recipe, index: int) -> tuple[Tensor, Tensor]:
    """Return images and targets, each mixed or patched with those of the batch in reverse; by (seed, step) alone."""
    kinds = [name for name in ("mixup", "cutmix") if getattr(recipe, name) > 0]
    if not kinds:
        return x, target
    rng = np.random.default_rng([recipe.seed, index])
    kind = kinds[int(rng.integers(len(kinds)))]
    alpha = getattr(recipe, kind)
    share = float(rng.beta(alpha, alpha))  # of the image itself
    other = x.flip(0)
    if kind == "mixup":
        x = share * x + (1 - share) * other
    else:
        height, width = x.shape[2:]
        h, w = (round(side * math.sqrt(1 - share)) for side in (height, width))
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        x = x.clone()
        x[:, :, top : top + h, left : left + w] = other[:, :, top : top + h, left : left + w]
        share = 1 - h * w / (height * width)
    return x, share * target + (1 - share) * target.flip(0)


def crops(image: ImageSpec, interpolation: Literal["bilinear", "bicubic"] = "bicubic") -> ViewPlan:
    """Return the one view of training with labels: a random crop of 8 to 100 % of the area, and a flip."""
    view = ViewSpec(size=image.size, interpolation=interpolation, order=("flip",))
    return ViewPlan((view,), (), image.mean, image.std)


def save(path: Path, net: Classifier, meta: Meta, classes: list[str]) -> None:
    """Write the fine-tuned network as a checkpoint whose encoder every command reads; atomic.

    ``meta`` is that of the checkpoint it came from, with the step and data of the fine-tuning.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    write(path, tensors, meta.but(encoder="backbone.", classes=classes))


def labelled_batches(
    images: Source, plan: ViewPlan, task: Task, batch: int, total: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return ``total`` batches of augmented ``images`` (B, 3, S, S) and their labels (B,), on the task's device."""
    augment = Augment(plan, seed)
    loader = Loader(
        images,
        augment.geometric,
        batch_size=batch,
        seed=seed,
        start_step=0,
        total_steps=total,
        workers=task.workers,
    )
    with closing(loader):
        for part in loader:
            views = augment(part, task.device)
            assert views.labels is not None
            yield views.globals[0], views.labels


def _test(net: Classifier, task: Task, recipe: Recipe, goal: Goal) -> Score | TargetScore:
    transform = task.image.transform()
    found = extract(net, task.test, transform, workers=task.workers, device=task.device, dtype=task.dtype)
    return goal.score(found, len(task.train), {"name": "finetune", "optimizer": "adamw", **asdict(recipe)})
