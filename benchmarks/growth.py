"""What must not grow: time an image with the batch, work an image with loader processes, the wait before a first step.

    OMP_NUM_THREADS=1 python benchmarks/growth.py batch            images in memory, batches of 64 to 4096
    OMP_NUM_THREADS=1 python benchmarks/growth.py workers FOLDER   photographs, by 1, 2 and 4 loader processes
    OMP_NUM_THREADS=1 python benchmarks/growth.py start FOLDER     from everything imported to the end of the first step

CPU time of all processes, which other work on the machine changes little. Medians over rounds; one start alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from sslctl.engine.setup import Training, build, open_inputs
from sslctl.methods.resolve import resolve
from sslctl.profiling.breakdown import time_loading
from sslctl.profiling.estimate import estimate
from sslctl.profiling.limit import race, training_step
from sslctl.runtime.device import peak_memory

BATCHES = 64, 256, 1024, 4096
RESNET = {"arch": "resnet18", "args": {"channels": [8, 16, 32, 64], "layers": [1, 1, 1, 1]}}
VIT = {"arch": "vit_tiny_patch16_224", "args": {"patch_size": 8, "embed_dim": 96, "depth": 2, "num_heads": 2}}
METHODS = ({"name": "byol", "hidden": 256, "out": 64}, RESNET), ({"name": "dino", "prototypes": 1024}, VIT)
PROCESSES = 1, 2, 4


def training(
    data: str, method: dict[str, Any], backbone: dict[str, Any], crops: str, batch: int, workers: int
) -> Training:
    user = {
        "data": {"path": data, "workers": workers},
        "method": method,
        "backbone": backbone,
        "views": {"multi_crop": crops},
        "run": {"batch_size": batch, "steps": 1000, "device": "cpu"},
    }
    return build(open_inputs(resolve(user)))


def row(*cells: object) -> None:
    sys.stdout.write(f"| {' | '.join(map(str, cells))} |\n")
    sys.stdout.flush()


def by_batch() -> None:
    """Augmentation and step, milliseconds an image."""
    row("method", "encoder", "batch", "augment, ms an image", "step, ms an image", "both ÷ batch 64", "memory, MiB")
    row(*["---"] * 7)
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.random.default_rng(0).integers(0, 256, (2 * BATCHES[-1], 32, 32, 3), dtype=np.uint8)
        np.savez(Path(folder) / "noise.npz", images=pixels)
        for method, backbone in METHODS:
            first = 0.0
            for size in BATCHES:
                t = training(f"{folder}/noise.npz", method, backbone, "2x32", size, 0)
                _, _, batch = time_loading(t)
                tasks: dict[str, Callable[[], object]] = {
                    "augment": partial(t.augment, batch, t.device),
                    "step": training_step(t, t.augment(batch, t.device)),
                }
                found = race(tasks, t.device, max(2, min(9, 2048 // size)), time.process_time)
                ms = [1000 * median(found[name]) / size for name in tasks]
                first = first or sum(ms)
                cells = [f"{x:.3f}" for x in ms], f"{sum(ms) / first:.2f}", peak_memory(t.device) >> 20
                row(method["name"], backbone["arch"], size, *cells[0], *cells[1:])


def by_workers(folder: str) -> None:
    """Milliseconds of all processes for an image of 2x160+4x96: as many processes as there are cores share it."""
    row("loader processes", "CPU ms an image", "÷ one process")
    row(*["---"] * 3)
    first = 0.0
    for workers in PROCESSES:
        t = training(folder, METHODS[0][0], RESNET, "2x160+4x96", 32, workers)
        loader = t.loader(start_step=0)
        batches = iter(loader)
        for _ in range(3 * workers):  # until all are at work
            next(batches)
        before, count = spent(loader), 4 * max(PROCESSES)
        for _ in range(count):
            next(batches)
        ms = 1000 * (spent(loader) - before) / (32 * count)
        first = first or ms
        row(workers, f"{ms:.2f}", f"{ms / first:.2f}")
        loader.close()


def spent(loader: Any) -> float:
    """Seconds of CPU time of this process and of the loader's."""
    pids = [worker.pid for worker in loader._running._workers]
    theirs = [int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9 for pid in pids]
    return time.process_time() + sum(theirs)


def from_start(folder: str) -> None:
    """Seconds of CPU time of what a run does before its first step, and that step; then of the second."""
    row("part", "demo, s", "photographs, s")
    row(*["---"] * 3)
    found: dict[str, list[float]] = {}
    for data in ("demo", folder):
        clock = [time.process_time()]

        def lap(name: str, clock: list[float] = clock) -> None:
            clock.append(time.process_time())
            found.setdefault(name, []).append(clock[-1] - clock[-2])

        small = data == "demo"
        spec = {
            "data": {"path": data, "workers": 0},
            "method": {"name": "simclr"},
            "backbone": {"arch": "resnet18"},
            "run": {"batch_size": 16, "steps": 100, "device": "cpu"},
        } | ({} if small else {"views": {"multi_crop": "2x96"}})
        inputs = open_inputs(resolve(spec))
        lap("data opened")
        t = build(inputs)
        lap("method, optimizer and loader built")
        estimate(t)
        lap("memory estimated")
        with_first = iter(t.loader(start_step=0))
        views = t.augment(next(with_first), t.device)
        lap("first batch and its views")
        step = training_step(t, views)
        step()
        lap("first step")
        step()
        lap("second step")
    for name, seconds in found.items():
        row(name, *(f"{s:.2f}" for s in seconds))


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, *rest = sys.argv[1:] or ["batch"]
    {"batch": by_batch, "workers": by_workers, "start": from_start}[what](*rest)
    sys.stdout.flush()
    os._exit(0)  # loader processes may be in the midst of an endless set
