"""What is measured as a run goes: loss, rates, waiting, health; each metric line of it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..data.loader import Batch
from ..errors import DivergedError, Exit
from ..methods.base import Output
from ..runs.checkpoint import DIVERGED_HINT
from ..runtime import distributed
from ..runtime.device import peak_memory
from ..schedule import Step
from .health import REMEDY, Health, health
from .setup import Training

COLLAPSE_PATIENCE = 3  # metric lines in a row
COLLAPSE_FROM = 50  # steps; a random network may look collapsed


@dataclass
class Meter:
    """Measurements between two metric lines; the device is asked for numbers only when a line is written."""

    t: Training
    losses: list[Tensor] = field(default_factory=list)
    images: int = 0
    waited: float = 0.0  # seconds for the loader
    augmented: float = 0.0  # seconds of this process; an accelerator may still be at work after them
    since: float = field(default_factory=time.perf_counter)
    collapsed: int = 0  # metric lines in a row

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield ``batches``, counting the time that each takes to come."""
        while True:
            begin = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - begin
            if batch is None:
                return
            yield batch

    @contextlib.contextmanager
    def augmenting(self) -> Iterator[None]:
        """Count the time within as augmentation."""
        begin = time.perf_counter()
        yield
        self.augmented += time.perf_counter() - begin

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time within out of all rates."""
        begin = time.perf_counter()
        yield
        self.since += time.perf_counter() - begin

    def add(self, output: Output, batch: Batch) -> None:
        """Count a step. Raises DivergedError where its loss is not finite, on a CPU at once, elsewhere in ``line``."""
        self.losses.append(output.loss.detach())
        self.images += len(batch.index) * distributed.world_size()
        if self.t.device.type == "cpu" and not bool(torch.isfinite(self.losses[-1])):
            raise DivergedError(f"the loss is {float(self.losses[-1])}", DIVERGED_HINT)

    def line(self, step: Step, output: Output) -> dict[str, Any]:
        """Return the metric line of the steps since the last one; ``output`` is that of ``step``.

        Raises DivergedError where the mean loss is not finite, or the run is to stop when collapsed and is.
        """
        loss = float(distributed.mean(torch.stack(self.losses).float().mean()))
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} at step {step.index + 1}", DIVERGED_HINT)
        seconds = max(1e-9, time.perf_counter() - self.since)
        logs = {key: float(value) for key, value in output.logs.items()}
        state = health(output.embedding, logs.get("target_entropy"))
        line = {
            "step": step.index + 1,
            "epoch": step.epochs_done,
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
