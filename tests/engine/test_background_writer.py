"""Checkpoints beside the training: they hold what stood when they were asked for, in order, and errors are heard."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest
import torch

from sslctl.engine.background_writer import BackgroundWriter
from sslctl.engine.loop import take_step, train
from sslctl.errors import MachineError
from sslctl.profiling.estimate import noise_views
from sslctl.runs import checkpoint
from sslctl.runs.directory import Run
from sslctl.schedule import Step

from ..disk import files_up_to
from ..training import StopAfter, picture_folder, silent, small_spec, training


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_on_does_not_change_a_snapshot(tmp_path, optimizer):
    t = training(small_spec(picture_folder(tmp_path / "pictures"), "swav", optimizer))
    take_step(t, noise_views(t, 8), Step(0, 10, 2))
    tensors, meta = checkpoint.snapshot(t.method, t.optimizer, t.meta.but(step=1))
    before = {name: value.clone() for name, value in tensors.items()}
    take_step(t, noise_views(t, 8), Step(1, 10, 2))
    assert all(torch.equal(before[name], value) for name, value in tensors.items())
    assert any(not torch.equal(before["method." + name], now) for name, now in t.method.state_dict().items())
    checkpoint.write(tmp_path / "one.safetensors", tensors, meta)
    _, written = checkpoint.read(tmp_path / "one.safetensors")
    assert written.keys() == before.keys()
    assert all(torch.equal(before[name], value) for name, value in written.items())


def test_one_at_a_time_in_order_beside_the_caller():
    done: list[int] = []
    first = threading.Event()
    with closing(BackgroundWriter()) as saver:
        saver.submit(lambda: (first.wait(10), done.append(1))[1])
        assert done == [], "the caller did not wait"
        first.set()
        saver.submit(lambda: done.append(2))
        assert done[0] == 1, "the second waited for the first"
    assert done == [1, 2], "leaving waits for what is under way"


def test_an_error_is_raised_once_at_the_next_call():
    def fails() -> None:
        raise MachineError("no room")

    saver = BackgroundWriter()
    saver.submit(fails)
    with pytest.raises(MachineError, match="no room"):
        saver.submit(lambda: None)
    saver.close()


def test_a_disk_that_refuses_ends_the_run_with_its_reason(tmp_path):
    t = training(small_spec(picture_folder(tmp_path / "pictures")))
    with Run(tmp_path / "run") as run, files_up_to(20_000), pytest.raises(MachineError, match="File too large"):
        train(t, run, StopAfter(99), silent)
    assert not list(run.checkpoints.glob("*"))
