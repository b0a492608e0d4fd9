"""A step on CUDA where there is none: tensors that know where they lie but hold no numbers (torch's FakeTensorMode).

They refuse to meet a tensor of another device, to tell their values, and to take a shape that hangs on values. So what
passes here mixes no devices and never makes the host wait for the device. They have no backward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode

from sslctl.engine.loop import take_step
from sslctl.engine.optimizers import build_optimizer
from sslctl.engine.setup import Training, build, open_inputs
from sslctl.methods import METHODS, load_method
from sslctl.methods.resolve import resolve
from sslctl.runtime.device import SideStream, send
from sslctl.schedule import Step
from tests.training import picture_folder, small_spec

CUDA = torch.device("cuda")


class Travels(TorchDispatchMode):
    """Every copy from the host to the device is asynchronous, and from pinned memory; none goes back."""

    def __init__(self) -> None:
        super().__init__()
        self.pinned: list[Tensor] = []
        self.sent = 0
        self.halves = 0  # products in bf16

    def pin(self, x: Tensor) -> Tensor:
        self.pinned.append(x)
        return x

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        to = kwargs.get("device")
        if func is torch.ops.aten._to_copy.default and to is not None and to.type != args[0].device.type:
            assert to.type == "cuda", "the host waits for what comes back"
            assert kwargs.get("non_blocking"), "the host waits until it is there"
            assert any(x is args[0] for x in self.pinned), "the host waits until the driver has copied it"
            self.sent += 1
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.convolution.default):
            self.halves += args[1].dtype == torch.bfloat16
        if func is torch.ops.aten.copy_.default:
            assert args[0].device == args[1].device, "a copy of its own way"
        return func(*args, **kwargs)


@contextmanager
def no_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Travels]:
    travels = Travels()
    numbers = Tensor.numpy

    def numpy(x: Tensor) -> Any:  # of real tensors, which the mode would take for its own
        with unset_fake_temporarily():
            return numbers(x)

    cpu = functools.partial(torch.Generator, "cpu")
    enter = torch.autocast.__init__

    def autocast(*args: Any, **kwargs: Any) -> None:  # which asks for a device when it is made, and then never again
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
            enter(*args, **kwargs)

    with monkeypatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True), travels:
        patch.setattr(torch, "Generator", lambda device="cpu": cpu())
        patch.setattr(Tensor, "numpy", numpy)
        patch.setattr(torch.autocast, "__init__", autocast)
        patch.setattr(Tensor, "pin_memory", lambda x: travels.pin(x))
        yield travels


def moved(t: Training) -> Training:
    """``t`` as if on CUDA."""
    for module in t.method.modules():
        for name, p in module._parameters.items():
            if p is not None:
                there = torch.empty(p.shape, dtype=p.dtype, device=CUDA)
                module._parameters[name] = nn.Parameter(there, p.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=CUDA)
    optimizer = build_optimizer(t.spec.optim, t.method)
    return replace(t, device=CUDA, dtype=torch.bfloat16, model=t.method, optimizer=optimizer)


def backward(t: Training) -> Callable[[Tensor], None]:
    def fill(loss: Tensor) -> None:
        assert loss.device.type == "cuda" and loss.requires_grad
        for p in t.method.parameters():
            if p.requires_grad:
                p.grad = torch.empty_like(p)

    return fill


def opened(path: Path, name: str, optimizer: str = "adamw", **sections: Any) -> Training:
    user = small_spec(path, name, optimizer, **sections)
    user["method"] = {"name": name, **load_method(name).tiny}
    return build(open_inputs(resolve(user)))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one size, which are held in memory."""
    folder = tmp_path_factory.mktemp("alike")
    for i in range(20):
        noise = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i:02d}.png")
    return folder


def steps(t: Training, monkeypatch: pytest.MonkeyPatch) -> Travels:
    """Two steps of ``t``, as if on CUDA, from the loader's batch to the moved teacher."""
    batch = next(iter(t.loader(start_step=0)))
    with no_device(monkeypatch) as travels:
        t = moved(t)
        with monkeypatch.context() as patch:
            patch.setattr(Tensor, "backward", backward(t))
            views = t.augment(batch, CUDA)
            for i in range(2):
                output = take_step(t, views, Step(i, t.total, t.per_epoch, 0))
        assert all(view.is_cuda for view in views.all)
        assert output.loss.is_cuda and output.embedding.is_cuda
    return travels


@pytest.mark.parametrize("name", METHODS)
def test_no_method_makes_the_host_wait_for_the_device(name, pictures, monkeypatch):
    travels = steps(opened(pictures, name, optim={"clip": 1.0}), monkeypatch)
    assert travels.sent > 10, "crops, and how each is augmented"
    assert travels.halves > 10, "autocast works on what is not there"


@pytest.mark.parametrize("optimizer", ["sgd", "lars", "larc"])
def test_no_optimizer_makes_the_host_wait(optimizer, pictures, monkeypatch):
    steps(opened(pictures, "dino", optimizer, optim={"clip": 1.0, "clip_each": True, "accumulate": 2}), monkeypatch)


@pytest.mark.parametrize("colour", ["exact", "matrix"])
def test_views_of_a_set_in_memory_are_made_on_the_device(colour, alike, monkeypatch):
    t = opened(alike, "simclr", views={"colour": colour})
    assert next(iter(t.loader(start_step=0))).images is not None
    steps(t, monkeypatch)


def test_waiting_is_noticed(pictures, monkeypatch):
    x = torch.ones(3)
    with no_device(monkeypatch):
        there = send(x, CUDA)
        for wait in (there.sum().item, there.tolist, lambda: bool(there.any()), lambda: float(there[0])):
            with pytest.raises(DataDependentOutputException):
                wait()
        with pytest.raises(DynamicOutputShapeException):
            there[there > 0]
        with pytest.raises(RuntimeError, match="device"):
            there + torch.ones(3)
        y = torch.ones(3)
        for copy in (lambda: y.to(CUDA, non_blocking=True), there.cpu, lambda: y.pin_memory().to(CUDA)):
            with pytest.raises(AssertionError, match="the host waits"):
                copy()


def test_what_is_made_beside_waits_for_nothing_and_is_waited_for(monkeypatch):
    said: list[Any] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            said.append((self.name, "waits for", other.name))

    @contextmanager
    def entered(stream: Stream) -> Iterator[None]:
        said.append((stream.name, "takes over"))
        yield
        said.append((stream.name, "is left"))

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("own"))
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("main"))
    monkeypatch.setattr(
        Tensor, "record_stream", lambda x, stream: said.append((tuple(x.shape), "kept by", stream.name))
    )
    beside = SideStream(CUDA)
    with FakeTensorMode():
        made = beside(lambda: ([torch.empty(2, device=CUDA)], torch.empty(3, device=CUDA), torch.empty(4), None))
    assert len(made) == 4
    expected = [("own", "takes over"), ("own", "is left"), ("main", "waits for", "own")]
    assert said == [*expected, ((2,), "kept by", "main"), ((3,), "kept by", "main")]
