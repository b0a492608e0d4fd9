"""The limit of a training step: its backbones alone on the same crops; and how contenders are timed."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..backbones import Backbone
from ..backbones.compiling import compile_backbones, new_graphs, uncompiled
from ..engine.loop import take_step
from ..engine.setup import Training
from ..methods.base import Views
from ..schedule import Step

Run = Callable[[], object]


def training_step(t: Training, views: Views) -> Run:
    """Return a step of the run on ``views``, later than any epoch in which a layer is frozen."""
    steps = itertools.count(t.total // 2)
    t.method.train()
    return lambda: take_step(t, views, Step(next(steps), 4 * t.total, t.per_epoch, t.spec.run.seed))


class Call(NamedTuple):
    """One forward pass of a backbone."""

    backbone: Backbone
    images: int
    shape: tuple[int, ...]  # (C, H, W)
    learns: bool


class EncoderOnly:
    """The lower limit of a step: forward and backward passes of its backbones, and plain SGD.

    Which backbone saw how many images of what size, with gradient or without, is watched in one real step.
    ``grouped`` puts the images of one size and backbone into one pass, or each view into its own; as it was by default.
    """

    def __init__(self, t: Training, views: Views, grouped: bool | None = None) -> None:
        self.t = t
        calls = arrange(watch(t, views), len(views.index), grouped)
        copies = {id(call.backbone): copy.deepcopy(call.backbone).train() for call in calls}
        if t.compiled:
            compile_backbones(nn.ModuleList(copies.values()), t.compiled)
        self.passes = [
            (copies[id(call.backbone)], torch.randn(call.images, *call.shape, device=t.device), call.learns)
            for call in calls
        ]
        learners = {id(net): net for net, _, learns in self.passes if learns}
        params = [p for net in learners.values() for p in net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(params, lr=1e-6, foreach=True)

    def step(self) -> None:
        if self.t.compiled == "graphs":
            new_graphs()
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.t.device)
        with torch.autocast(self.t.device.type, self.t.dtype, enabled=self.t.dtype != torch.float32):
            for net, x, learns in self.passes:
                with torch.set_grad_enabled(learns):
                    features: Tensor = net(x).pooled
                if learns:
                    loss = loss + features.float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def watch(t: Training, views: Views) -> list[Call]:
    """Return the backbone passes in one step of the run."""
    calls: list[Call] = []

    def record(net: nn.Module, args: tuple[Tensor, ...], _: Any) -> None:
        assert isinstance(net, Backbone)
        calls.append(Call(net, len(args[0]), tuple(args[0].shape[1:]), torch.is_grad_enabled()))

    hooks = [m.register_forward_hook(record) for m in t.method.modules() if isinstance(m, Backbone)]
    with uncompiled():  # compiled code does not look for hooks
        training_step(t, views)()
    for hook in hooks:
        hook.remove()
    return calls


def arrange(calls: Sequence[Call], images: int, grouped: bool | None) -> list[Call]:
    """Return ``calls`` with the images of one size in one pass, or ``images`` in each, or as they are."""
    if grouped is None:
        return list(calls)
    total: dict[Call, int] = {}
    for call in calls:
        key = call._replace(images=0)
        total[key] = total.get(key, 0) + call.images
    if grouped:
        return [call._replace(images=n) for call, n in total.items()]
    return [call._replace(images=images) for call, n in total.items() for _ in range(n // images)]


def race(
    contenders: dict[str, Run], device: torch.device, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of each contender by round; they take turns A B C, C B A, after two warm-up rounds."""

    def seconds(run: Run) -> float:
        begin = clock()
        run()
        if device.type != "cpu":
            getattr(torch, device.type).synchronize()
        return clock() - begin

    by_name: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(-2, rounds):
        for name in list(contenders) if turn % 2 else list(reversed(contenders)):
            took = seconds(contenders[name])
            if turn >= 0:
                by_name[name].append(took)
    return by_name
