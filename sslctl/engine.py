"""The loop, whole on one screen; it knows no method by name."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from . import checkpoint, distributed
from .checkpoint import DIVERGED_HINT, Meta
from .data.loader import Batch, Loader
from .data.source import Source
from .data.unreadable import check_bad
from .diagnostics import REMEDY, Health, health
from .errors import CheckpointError, DataError, DivergedError, Exit, Stopped
from .method import Method, Output, Views
from .optim import clip_gradients
from .run import Run
from .schedule import Schedule, Step
from .spec import Spec
from .stop import StopRequest
from .views.augment import Augment

COLLAPSE_PATIENCE = 3  # metric lines in a row
COLLAPSE_FROM = 50  # steps; a random network may look collapsed
BEST_BY = "probe_knn"


@dataclass
class Training:
    """Everything a run needs; build.py makes it from a spec."""

    spec: Spec
    source: Source
    method: Method[Any]
    model: nn.Module  # the method, or what wraps it on several processes
    optimizer: torch.optim.Optimizer
    augment: Augment
    loader: Callable[..., Loader]  # start_step is still to say
    lr: Schedule
    weight_decay: Schedule
    device: torch.device
    dtype: torch.dtype
    scaler: torch.amp.GradScaler
    total: int
    per_epoch: int
    log_every: int
    checkpoint_every: int
    meta: Meta
    probe: Callable[[Step], dict[str, float]] | None = None  # scores the encoder; must leave everything as it is
    probe_every: int = 1


def train(t: Training, run: Run, stop: StopRequest, report: Callable[[dict[str, Any]], None]) -> Meta:
    """Train from the newest checkpoint in ``run``, or from the start, to the end; the last checkpoint's meta.

    Raises Stopped when ``stop`` asks for it (saved), DivergedError when the loss is not finite.
    """
    start = resume(t, run, report)
    meter = Meter(t, start)
    t.method.train()
    with closing(t.loader(start_step=start)) as loader:
        for index, batch in enumerate(meter.waiting(iter(loader)), start):
            step = Step(index, t.total, t.per_epoch, t.spec.run.seed)
            seed_step(t.spec.run.seed, index)
            output = take_step(t, t.augment(batch, t.device), step)
            meter.add(output, batch)
            refuse_bad(t, run, batch)
            done = index + 1
            line = meter.line(step, output) if done % t.log_every == 0 or done == t.total else {}
            if t.probe is not None and (done % t.probe_every == 0 or done == t.total):
                line |= meter.aside(t.probe, step)
            if line:
                run.log(line)
                report(line)
                keep_best(t, run, line)
            leave = stop.requested  # asked once: a signal after this line waits for the next step
            if done % t.checkpoint_every == 0 or done == t.total or leave:
                save(t, run, done)
            if leave and done < t.total:
                raise Stopped(f"stopped at step {done} of {t.total}, saved", "the same command goes on", leave)
    return checkpoint.read_meta(run.last)


def take_step(t: Training, views: Views, step: Step) -> Output:
    """One optimizer step on a batch, in ``optim.accumulate`` parts."""
    optim = t.spec.optim
    for group in t.optimizer.param_groups:
        group["lr"] = (t.lr.at(step) if group["scheduled"] else t.lr.base) * group["lr_scale"]
        group["weight_decay"] = t.weight_decay.at(step) if group["decay"] else 0.0

    t.optimizer.zero_grad(set_to_none=True)
    for part in split(views, optim.accumulate):
        with torch.autocast(t.device.type, t.dtype, enabled=t.dtype != torch.float32):
            output: Output = t.model(part, step)
        t.scaler.scale(output.loss / optim.accumulate).backward()  # type: ignore[no-untyped-call]
    t.scaler.unscale_(t.optimizer)
    if optim.clip:
        clip_gradients(t.method, optim.clip, each=optim.clip_each)
    t.method.after_backward(step)
    t.scaler.step(t.optimizer)
    t.scaler.update()
    t.method.after_step(step)
    return output


def split(views: Views, parts: int) -> Iterator[Views]:
    """``views`` in ``parts`` of equally many images."""
    if parts == 1:
        yield views
        return
    pieces = [x.chunk(parts) for x in views.all]
    n = len(views.globals)
    for i, index in enumerate(views.index.chunk(parts)):
        labels = None if views.labels is None else views.labels.chunk(parts)[i]
        yield Views([p[i] for p in pieces[:n]], [p[i] for p in pieces[n:]], index, labels)


def seed_step(seed: int, index: int) -> None:
    """Dropout and masks are a function of the step (and the process), so no generator's state is saved."""
    torch.manual_seed((seed * 1_000_003 + index) * 4099 + distributed.rank())


def resume(t: Training, run: Run, report: Callable[[dict[str, Any]], None]) -> int:
    """Load the newest good checkpoint; the step it was made at, 0 where there is none."""
    skipped: list[str] = []
    path = checkpoint.newest(run.checkpoints, skipped, verify=True)
    start = 0
    if path is not None:
        meta = checkpoint.restore(path, t.method, t.optimizer)
        if "scaler" in meta:
            t.scaler.load_state_dict(meta["scaler"])
        start = int(meta["step"])
        if meta["data"]["fingerprint"] != t.meta["data"]["fingerprint"]:
            raise DataError(
                f"the images at {t.spec.data.path} are not those that {path.name} was trained on "
                f"({meta['data']['images']} then, {t.meta['data']['images']} now, or other names or sizes)",
                "restore the set, or start anew with --fresh",
            )
    report({"resumed": start, "checkpoint": str(path) if path else None, "skipped": skipped})
    run.start_metrics(start)
    return start


def save(t: Training, run: Run, done: int) -> None:
    path = run.numbered(done)
    checkpoint.save(path, t.method, t.optimizer, state(t) | {"step": done})
    run.keep_last(path, t.spec.run.keep)


def state(t: Training) -> Meta:
    """What a checkpoint says beside tensors and step."""
    return t.meta | ({"scaler": t.scaler.state_dict()} if t.scaler.is_enabled() else {})


def keep_best(t: Training, run: Run, line: dict[str, Any]) -> None:
    """``best``, which one process writes, has the highest score of the probe; of equals, the earliest."""
    if BEST_BY not in line or distributed.rank() > 0:
        return
    with contextlib.suppress(CheckpointError, KeyError):
        best = checkpoint.read_meta(run.best)
        if best["step"] < line["step"] and best["probe"][BEST_BY] >= line[BEST_BY]:
            return
    probe = {key: value for key, value in line.items() if key.startswith("probe_")}
    checkpoint.save(run.best, t.method, t.optimizer, state(t) | {"step": line["step"], "probe": probe})


def refuse_bad(t: Training, run: Run, batch: Batch) -> None:
    """Write down unreadable images; DataError where they are more than the spec allows."""
    for index, reason in batch.bad:
        run.record_bad(index, t.source.item_name(index), reason)
    if batch.bad:
        check_bad(t.source, run.bad, fail=t.spec.data.bad_images == "fail", limit=t.spec.data.bad_limit)


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
    since: float = field(default_factory=time.perf_counter)
    collapsed: int = 0

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

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
        loss = float(torch.stack(self.losses).float().mean())
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
            "std": state.std,
            "rank": state.rank,
            "rank_of": state.full,
            "health": self._judge(state, step),
        } | logs
        self.losses, self.images, self.waited, self.since = [], 0, 0.0, time.perf_counter()
        return line

    def _judge(self, state: Health, step: Step) -> str:
        self.collapsed = self.collapsed + 1 if state.collapsed and step.index >= COLLAPSE_FROM else 0
        if self.collapsed >= COLLAPSE_PATIENCE and self.t.spec.run.fail_on_collapse:
            raise DivergedError(f"collapsed at step {step.index + 1}: {state}", REMEDY, Exit.DIVERGED)
        return str(state)
