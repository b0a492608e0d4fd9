"""What is measured as a run goes: loss, rates, waiting, health; each metric line of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..data.loader import Batch
from ..errors import DivergedError, Exit
from ..methods.base import Output, Views
from ..runs.checkpoint import DIVERGED_HINT
from ..runtime import distributed
from ..runtime.device import Beside, peak_memory
from ..schedule import Step
from .health import REMEDY, Health, health
from .training import Training

COLLAPSE_PATIENCE = 3  # metric lines in a row
COLLAPSE_FROM = 50  # steps; a random network may look collapsed


def epoch_of(step: Step) -> float:
    return round((step.index + 1) / step.per_epoch, 4)


@dataclass
class Meter:
    """What is measured between two metric lines; the device is asked for numbers only when a line is written."""

    t: Training
    start: int
    losses: list[Tensor] = field(default_factory=list)
    images: int = 0
    waited: float = 0.0
    augmented: float = 0.0  # seconds of this process; an accelerator may still be at work after them
    since: float = field(default_factory=time.perf_counter)
    collapsed: int = 0

    def __post_init__(self) -> None:
        self.beside = Beside(self.t.device)

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def views(self, batch: Batch) -> Views:
        before = time.perf_counter()
        views = self.beside(lambda: self.t.augment(batch, self.t.device))
        self.augmented += time.perf_counter() - before
        return views

    def add(self, output: Output, batch: Batch) -> None:
        self.losses.append(output.loss.detach())
        self.images += len(batch.index) * distributed.world_size()
        if self.t.device.type == "cpu" and not bool(torch.isfinite(self.losses[-1])):
            raise DivergedError(f"the loss is {float(self.losses[-1])}", DIVERGED_HINT)

    def aside(self, probe: Callable[[Step], dict[str, float]], step: Step) -> dict[str, Any]:
        """What ``probe`` finds, and its cost; training's own clock stands still."""
        before = time.perf_counter()
        found = probe(step)
        seconds = time.perf_counter() - before
        self.since += seconds
        return {"step": step.index + 1, "epoch": epoch_of(step), **found, "probe_seconds": seconds}

    def line(self, step: Step, output: Output) -> dict[str, Any]:
        """The metric line of the steps since the last one."""
        loss = float(distributed.mean(torch.stack(self.losses).float().mean()))
        if loss != loss or abs(loss) == float("inf"):
            raise DivergedError(f"the loss is {loss} at step {step.index + 1}", DIVERGED_HINT)
        seconds = max(1e-9, time.perf_counter() - self.since)
        logs = {key: float(value) for key, value in output.logs.items()}
        state = health(output.embedding, logs.get("target_entropy"))
        line = {
            "step": step.index + 1,
            "epoch": epoch_of(step),
            "loss": loss,
            "lr": self.t.lr.at(step),
            "images_per_second": self.images / seconds,
            "data_wait": min(1.0, self.waited / seconds),
            "augment": min(1.0, self.augmented / seconds),
            "memory_gib": round(peak_memory(self.t.device) / 2**30, 3),
            "std": state.std,
            "rank": state.rank,
            "rank_of": state.full,
            "health": self._judge(state, step),
        } | logs
        self.losses, self.images, self.waited, self.augmented = [], 0, 0.0, 0.0
        self.since = time.perf_counter()
        return line

    def _judge(self, state: Health, step: Step) -> str:
        self.collapsed = self.collapsed + 1 if state.collapsed and step.index >= COLLAPSE_FROM else 0
        if self.collapsed >= COLLAPSE_PATIENCE and self.t.spec.run.fail_on_collapse:
            raise DivergedError(f"collapsed at step {step.index + 1}: {state}", REMEDY, Exit.DIVERGED)
        return str(state)
