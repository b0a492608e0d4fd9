"""Training with labels, of a whole network or of heads alone: the images, their crops, and batches by the step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..data.loader import Loader
from ..data.source import Source
from ..runs.meta import ImageSpec
from ..schedule import Step
from ..views.augment import Augment
from ..views.recipe import ViewPlan, ViewSpec


@dataclass(frozen=True)
class Task:
    """Labelled images to learn from and to test on, what they are normalised by, and the machine to do it on."""

    train: Source
    test: Source
    image: ImageSpec
    device: torch.device
    dtype: torch.dtype
    workers: int


class LabelledBatches:
    """Augmented ``images`` for ``epochs`` epochs: (step, views (B, 3, S, S), labels (B,)), on the task's device.

    ``size`` is the batch size, at most the number of images; each epoch has ``per_epoch`` whole batches of ``total``.
    """

    def __init__(
        self,
        images: Source,
        task: Task,
        batch_size: int,
        epochs: float,
        seed: int,
        interpolation: Literal["bilinear", "bicubic"] = "bicubic",
    ) -> None:
        self.size = min(batch_size, len(images))
        self.per_epoch = len(images) // self.size
        self.total = max(1, round(epochs * self.per_epoch))
        self.images, self.task, self.seed = images, task, seed
        self.plan = crops(task.image, interpolation)

    def __iter__(self) -> Iterator[tuple[Step, Tensor, Tensor]]:
        augment = Augment(self.plan, self.seed)
        loader = Loader(
            self.images,
            augment.geometric,
            batch_size=self.size,
            seed=self.seed,
            start_step=0,
            total_steps=self.total,
            workers=self.task.workers,
        )
        with closing(loader):
            for index, part in enumerate(loader):
                views = augment(part, self.task.device)
                assert views.labels is not None
                yield Step(index, self.total, self.per_epoch), views.globals[0], views.labels


def crops(image: ImageSpec, interpolation: Literal["bilinear", "bicubic"] = "bicubic") -> ViewPlan:
    """Return the one view of training with labels: a random crop of 8 to 100 % of the area, and a flip."""
    view = ViewSpec(size=image.size, interpolation=interpolation, order=("flip",))
    return ViewPlan((view,), (), image.mean, image.std)
