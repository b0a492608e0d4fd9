"""Loader processes: a bug stays a bug, a death is named, signals do not reach them, none is left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from sslctl.data.loader import Loader
from sslctl.data.order import order
from sslctl.data.source import ArraySource, FileSource
from sslctl.errors import MachineError
from sslctl.views.augment import Augment
from sslctl.views.recipe import IMAGENET_MEAN, IMAGENET_STD, ViewPlan, ViewSpec

from .loading import STEPS, N, corners, loader, same


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
    got = [next(batches), next(batches)]  # one of each worker: they have begun
    workers = [process.pid for process in running.processes]
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
    processes = running.processes
    running.close()
    running.close()
    for process in processes:
        process.join(10)
        assert not process.is_alive()


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_processes_crop_what_is_in_memory(workers: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (10, 24, 30, 3), dtype=np.uint8)
    source = ArraySource("set", array, np.arange(10) % 2, ["a", "b"])
    augment = Augment(ViewPlan((ViewSpec(size=16),) * 2, (ViewSpec(size=8),), IMAGENET_MEAN, IMAGENET_STD), 3)
    loader = Loader(
        source, augment.geometric, batch_size=5, seed=0, start_step=0, total_steps=3, workers=workers,
        sizes=[16, 16, 8], whole=False,
    )  # fmt: skip
    for batch in loader:
        assert batch.images is None and batch.labels is not None
        for row, (epoch, index) in enumerate(zip(batch.epoch.tolist(), batch.index.tolist(), strict=True)):
            expected = augment.geometric(array[index], epoch, index)
            assert all(torch.equal(view[row], crop) for view, crop in zip(batch.crops, expected, strict=True))
            assert int(batch.labels[row]) == index % 2
