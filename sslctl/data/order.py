"""Which image comes when: a function of (seed, epoch), whatever the number of workers and wherever a run starts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from ..errors import SpecError

Key = tuple[int, int]
"""(epoch, index): which image, and which draw of its augmentation."""


def order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """Return the permutation (n,) of an epoch: ranks of raw PCG64 words, which no NumPy version may change."""
    words = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(n)
    return np.argsort(words, kind="stable")


class StepKeys(Sampler[list[Key]]):
    """The keys of this rank's part of each batch, from ``start_step`` to ``total_steps``.

    An epoch has ``n // batch_size`` steps; what is left of its order is dropped. Global batches do not depend on the
    number of processes: rank r takes the r-th of ``world_size`` equal parts.
    """

    def __init__(
        self,
        n: int,
        *,
        batch_size: int,
        seed: int,
        start_step: int,
        total_steps: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size % world_size:
            raise SpecError(
                f"a batch of {batch_size} images cannot be shared evenly by {world_size} processes",
                f"--batch-size {max(1, batch_size // world_size) * world_size}",
            )
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.start_step, self.total_steps = start_step, total_steps
        self.steps_per_epoch = n // batch_size
        self._part = slice(batch_size // world_size * rank, batch_size // world_size * (rank + 1))

    def __len__(self) -> int:
        return max(0, self.total_steps - self.start_step)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch_now, permutation = -1, np.empty(0, np.int64)
        for step in range(self.start_step, self.total_steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if epoch != epoch_now:
                epoch_now, permutation = epoch, order(self.seed, epoch, self.n)
            batch = permutation[position * self.batch_size : (position + 1) * self.batch_size]
            yield [(epoch, index) for index in batch[self._part].tolist()]
