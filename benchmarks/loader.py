"""How fast ready-made crops get from a loader process to the trainer, beside float32 samples collated by torch.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/loader.py

2x160+4x96 in batches of 64, one process. Nothing is decoded: the process hands over copies of crops that it has, so
the way alone is measured. Contenders take turns; images a second of wall time, and CPU time of both processes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from sslctl.data.loader import Loader
from sslctl.data.source import ArraySource

SIZES = [160, 160, 96, 96, 96, 96]
BATCH, IMAGES, ROUNDS, BATCHES = 64, 1024, 9, 8


class Floats(Dataset[list[Tensor]]):
    """A sample is a float32 tensor for each view, as torchvision's and lightly's transforms leave it."""

    def __init__(self) -> None:
        self.crops = [torch.rand(3, size, size) for size in SIZES]

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, i: int) -> list[Tensor]:
        return [crop.clone() for crop in self.crops]


class Crops:
    def __init__(self) -> None:
        self.crops = [torch.randint(0, 256, (3, size, size), dtype=torch.uint8) for size in SIZES]

    def __call__(self, *_: object) -> list[Tensor]:
        return [crop.clone() for crop in self.crops]


def collated() -> tuple[Iterator[list[Tensor]], Callable[[], Any]]:
    data = Floats()
    endless = RandomSampler(data, replacement=True, num_samples=10**8)
    batches: Any = iter(DataLoader(data, BATCH, sampler=endless, num_workers=1, persistent_workers=True))
    return batches, lambda: batches._workers


def ours() -> tuple[Iterator[list[Tensor]], Callable[[], Any]]:
    source = ArraySource("ready-made", np.zeros((IMAGES, 1, 1, 3), np.uint8))
    loader = Loader(
        source, Crops(), batch_size=BATCH, seed=0, start_step=0, total_steps=10**6, workers=1, sizes=SIZES, whole=False
    )  # fmt: skip
    return (batch.crops for batch in loader), lambda: loader._running._workers


def measure(batches: Iterator[list[Tensor]], workers: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of wall time, and of CPU time in both processes, for BATCHES of them, each read once."""

    def cpu() -> float:
        there = [int(Path(f"/proc/{worker.pid}/schedstat").read_text().split()[0]) / 1e9 for worker in workers()]
        return time.process_time() + sum(there)

    begun, spent = time.perf_counter(), cpu()
    for _ in range(BATCHES):
        for view in next(batches):
            view.view(-1)[:: 4096 // view.element_size()].sum()  # every page
    return time.perf_counter() - begun, cpu() - spent


def main() -> None:
    torch.set_num_threads(1)
    tasks = {"float32, collated by torch": collated(), "sslctl": ours()}
    for batches, _ in tasks.values():
        next(batches)
    seconds = {name: np.array([(0.0, 0.0)] * ROUNDS) for name in tasks}
    for i in range(ROUNDS):
        for name, task in tasks.items():
            seconds[name][i] = measure(*task)
    first = next(iter(seconds.values()))
    sys.stdout.write("| what | images/s | times | CPU ms an image | times |\n|---|---|---|---|---|\n")
    for name, taken in seconds.items():
        wall, cpu = np.median(taken, 0) / (BATCH * BATCHES)
        faster, less = np.median(first / taken, 0)
        sys.stdout.write(f"| {name} | {1 / wall:.0f} | {faster:.1f} | {1e3 * cpu:.3f} | {less:.1f} |\n")
    sys.stdout.flush()
    os._exit(0)  # the processes are in the midst of an endless set


if __name__ == "__main__":
    main()
