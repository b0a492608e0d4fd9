"""What loader processes do: read the images of a batch, take their crops, lay them where the trainer finds them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, get_worker_info

from ..errors import SslctlError
from .order import Key, StepKeys
from .ring import Ring, Task
from .source import Source
from .unreadable import next_readable

Geometric = Callable[[np.ndarray, int, int], list[Tensor]]

_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


class CroppedBatch(NamedTuple):
    """A batch on its way from a loader process; the crops lie at ``place`` in the ring, or are in ``crops``."""

    keys: list[Key]
    used: list[int]  # the image really read, for each key
    bad: list[tuple[int, str]]
    place: int | None
    crops: list[Tensor]


class Tasks(Sampler[Task]):
    """The work of loader processes, in order; taken in this process shortly before it is due."""

    def __init__(self, keys: StepKeys, ring: Ring | None) -> None:
        self.keys, self.ring = keys, ring

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Task]:
        return ((None, batch) for batch in self.keys) if self.ring is None else self.ring.tasks(self.keys)


class Reader(Dataset[Any]):
    """A dataset that reads, crops and lays out a whole batch at a time."""

    def __init__(self, source: Source, geometric: Geometric, reading: Tensor, ring: Ring | None) -> None:
        self.source, self.geometric, self.reading, self.ring = source, geometric, reading, ring

    def __getitems__(self, task: Task) -> CroppedBatch | SslctlError:
        place, keys = task
        worker = get_worker_info()
        mine = self.reading[worker.id if worker is not None else 0]
        views = [] if place is None or self.ring is None else self.ring.crops(place)
        used, bad = [], []
        try:
            for row, (epoch, index) in enumerate(keys):
                mine.fill_(index)
                at, image, before = next_readable(self.source, index)
                crops = self.geometric(image, epoch, index)
                views = views or [crop.new_empty(len(keys), *crop.shape) for crop in crops]
                for view, crop in zip(views, crops, strict=True):
                    view[row] = crop
                used.append(at)
                bad += before
        except SslctlError as e:  # as a value: torch would wrap it into a traceback
            return e
        mine.fill_(-1)
        return CroppedBatch(keys, used, bad, place, views if place is None else [])


def as_is(batch: Any) -> Any:
    return batch


def start_worker(_: int) -> None:
    """Prepare a loader process: one thread, and signals ignored."""
    torch.set_num_threads(1)
    for name in _STOP_SIGNALS:  # sent to the whole process group; the main process decides what they mean
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
