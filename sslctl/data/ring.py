"""Memory that loader processes and this one share for the crops of batches, the same pages again and again."""

from __future__ import annotations

import mmap
import multiprocessing
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .decode import Pixels
from .order import Key

Task = tuple[int | None, list[Key]]
"""A place in the ring, where one was free, and the images of a batch."""

BATCHES_AHEAD = 2
"""Batches that torch lets every loader process prepare."""

_HELD = 4  # batches that the trainer may hold before the first is copied


class Ring:
    """Shared memory for batches of ``batch_size`` images, a uint8 crop (3, S, S) for every S of ``sizes``.

    Fresh pages of shared memory cost several times what is written on them, so places are reused as soon as nobody
    holds a tensor in them. The memory is anonymous: it is inherited by processes that are forked, needs no /dev/shm and
    is taken from the machine as it is first written to.
    """

    def __init__(self, batch_size: int, sizes: Sequence[int], workers: int) -> None:
        self.shapes = [(batch_size, 3, size, size) for size in sizes]
        self._length = sum(map(int, map(np.prod, self.shapes)))
        places = BATCHES_AHEAD * workers + _HELD
        self._places = np.frombuffer(mmap.mmap(-1, places * self._length), np.uint8).reshape(places, -1)
        self.free = deque(range(places))

    def tasks(self, keys: Iterable[list[Key]]) -> Iterator[Task]:
        for batch in keys:
            yield (self.free.pop() if self.free else None), batch

    def crops(self, place: int) -> list[Tensor]:
        """Return the crops of the batch at ``place``, (B, 3, S, S) a view, where they lie."""
        return self._cut(self._places[place])

    def lend(self, place: int) -> list[Tensor]:
        """Return the crops at ``place``, which becomes free when the last tensor into it is gone."""
        row = self._places[place]  # an array of its own, which the tensors keep
        weakref.finalize(row, self.free.append, place).atexit = False
        return self._cut(row)

    def _cut(self, row: Pixels) -> list[Tensor]:
        parts = torch.split_with_sizes(torch.from_numpy(row), [int(np.prod(shape)) for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]


def make_ring(batch_size: int, sizes: Sequence[int] | None, workers: int) -> Ring | None:
    """Return a ring if there are forked processes to share it with and crops have known sizes."""
    if not workers or not sizes or multiprocessing.get_start_method() != "fork":
        return None
    try:
        return Ring(batch_size, sizes, workers)
    except OSError:  # a machine that promises no more than it has
        return None
