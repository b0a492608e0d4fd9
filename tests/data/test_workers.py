"""Loader processes: a bug stays a bug, a death is named, signals do not reach them, none is left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sslctl.data.folder import open_folder
from sslctl.data.loader import Batch, Loader
from sslctl.data.order import order
from sslctl.data.source import ArraySource, FileSource
from sslctl.errors import MachineError

MakeImage = Callable[..., np.ndarray]  # the fixture in conftest.py

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


@pytest.fixture
def files(tmp_path: Path, image: MakeImage) -> FileSource:
    for i in range(N):
        image(tmp_path / f"c{i % 3}" / f"{i:02}.png", i, (6 + i % 5, 5 + i % 3))
    return open_folder(str(tmp_path), "train")


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


def fault(image: np.ndarray, epoch: int, index: int) -> list[Tensor]:
    raise ZeroDivisionError("a bug of ours")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_in_a_crop_stays_what_it_is(files: FileSource, workers: int) -> None:
    with pytest.raises(ZeroDivisionError, match="a bug of ours"):
        list(Loader(files, fault, batch_size=4, seed=0, start_step=0, total_steps=4, workers=workers))


DOOMED = int(order(5, 1, N)[9])


def die(image: np.ndarray, epoch: int, index: int) -> list[Tensor]:
    if (epoch, index) == (1, DOOMED):
        os.kill(os.getpid(), signal.SIGKILL)
    return corners(image, epoch, index)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_is_named_with_the_image_in_its_hand(files: FileSource, workers: int) -> None:
    handler = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(MachineError, match=r"a loader process died \(SIGKILL\)") as caught:
        list(Loader(files, die, batch_size=4, seed=5, start_step=0, total_steps=STEPS, workers=workers))
    assert f"while reading {files.item_name(DOOMED)}" in caught.value.message
    assert caught.value.exit_code == 5 and caught.value.hint
    assert signal.getsignal(signal.SIGCHLD) is handler


def full(image: np.ndarray, epoch: int, index: int) -> list[Tensor]:
    raise RuntimeError("unable to write to file </torch_1>: No space left on device (28)")


def bus(image: np.ndarray, epoch: int, index: int) -> list[Tensor]:
    os.kill(os.getpid(), signal.SIGBUS)  # what writing beyond the end of /dev/shm does
    return []


@pytest.mark.parametrize("geometric", [full, bus])
def test_shared_memory_that_runs_out_is_named(files: FileSource, geometric: Callable[..., list[Tensor]]) -> None:
    with pytest.raises(MachineError, match="/dev/shm") as caught:
        list(Loader(files, geometric, batch_size=4, seed=5, start_step=0, total_steps=STEPS, workers=2))
    assert "--workers 0" in caught.value.hint


def test_signals_to_the_process_group_do_not_end_workers(files: FileSource) -> None:
    """A terminal sends Ctrl-C, and SLURM SIGTERM, to all: the main process decides, and still needs its batches."""
    running = loader(files, 2)
    batches = iter(running)
    got = [next(batches)]
    workers = [process.pid for process in running._running._workers]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        for pid in workers:
            os.kill(pid, number)
    got += list(batches)
    assert all(map(same, got, list(loader(files))))


def sleepy(image: np.ndarray, epoch: int, index: int) -> list[Tensor]:
    time.sleep(0.01 if epoch == 0 else 3600)
    return corners(image, epoch, index)


def test_close_ends_workers_in_any_state(files: FileSource) -> None:
    running = Loader(files, sleepy, batch_size=4, seed=5, start_step=4, total_steps=STEPS, workers=2)
    batches = iter(running)
    next(batches)
    processes = list(running._running._workers)
    running.close()
    running.close()
    for process in processes:
        process.join(10)
        assert not process.is_alive()
