"""Batches with labels: their number and size, whole epochs, and the same crops for the same seed."""

from __future__ import annotations

import numpy as np
import torch

from sslctl.data.opening import open_source
from sslctl.evaluate.labelled_training import LabelledBatches, Task
from sslctl.runs.meta import ImageSpec

IMAGES = open_source("demo")
TASK = Task(IMAGES, IMAGES, ImageSpec(size=24, mean=(0.0,) * 3, std=(1.0,) * 3), torch.device("cpu"), torch.float32, 0)


def test_a_batch_is_at_most_the_set_and_epochs_are_whole_batches() -> None:
    few = IMAGES.take(np.arange(50))
    assert (LabelledBatches(few, TASK, 128, 3, seed=0).size, LabelledBatches(few, TASK, 128, 3, seed=0).total) == (
        50,
        3,
    )
    batches = LabelledBatches(few, TASK, 20, 1.5, seed=0)
    assert (batches.size, batches.per_epoch, batches.total) == (20, 2, 3)
    made = list(batches)
    assert [(step.index, step.epoch) for step, _, _ in made] == [(0, 0), (1, 0), (2, 1)]
    assert all(x.shape == (20, 3, 24, 24) and labels.shape == (20,) for _, x, labels in made)


def test_the_seed_decides_the_order_and_the_crops() -> None:
    few = IMAGES.take(np.arange(40))
    (_, x, y), (_, again, same), (_, other, _) = (next(iter(LabelledBatches(few, TASK, 40, 1, s))) for s in (0, 0, 1))
    assert torch.equal(x, again) and torch.equal(y, same) and not torch.equal(x, other)
    assert sorted(y.tolist()) == sorted(few.labels), "an epoch of one batch has each image once"
