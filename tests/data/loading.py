"""Loaders over small files, and what it means that two batches are the same."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sslctl.data.loader import Batch, Loader
from sslctl.data.source import ArraySource, FileSource

N, STEPS = 26, 14  # with a batch of 4: six steps an epoch, two images left over


def corners(image: np.ndarray, epoch: int, index: int) -> list[Tensor]:
    """Two crops of 4 px and one of 3 px, at a place that (epoch, index) decide."""
    draw = torch.Generator().manual_seed(1000 * epoch + index)
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    crops = []
    for size in (4, 4, 3):
        y = int(torch.randint(0, image.shape[0] - size + 1, (1,), generator=draw))
        x = int(torch.randint(0, image.shape[1] - size + 1, (1,), generator=draw))
        crops.append(pixels[:, y : y + size, x : x + size])
    return crops


def loader(source: FileSource | ArraySource, workers: int = 0, start: int = 0, **more: object) -> Loader:
    settings = {"batch_size": 4, "seed": 5, "start_step": start, "total_steps": STEPS, "workers": workers, **more}
    return Loader(source, corners, **settings)  # type: ignore[arg-type]


def same(a: Batch, b: Batch) -> bool:
    return (
        torch.equal(a.index, b.index)
        and torch.equal(a.epoch, b.epoch)
        and len(a.crops) == len(b.crops) > 0
        and all(map(torch.equal, a.crops, b.crops))
        and a.labels is not None
        and b.labels is not None
        and torch.equal(a.labels, b.labels)
        and a.bad == b.bad
    )
