"""The loop, whole on one screen; it knows no method by name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import torch

from ..data.loader import Batch
from ..data.unreadable import check_bad
from ..errors import CheckpointError, DataError, Exit, Stopped
from ..methods.base import Output, Views
from ..runs import checkpoint
from ..runs.directory import Run
from ..runs.meta import Meta
from ..runtime import distributed
from ..runtime.seeding import seed_step
from ..runtime.stop import StopRequest
from ..schedule import Step
from .background_writer import Saver
from .meter import Meter
from .optimizers import clip_gradients
from .training import Training

BEST_BY = "probe_knn"


def train(t: Training, run: Run, stop: StopRequest, report: Callable[[dict[str, Any]], None]) -> Meta:
    """Train from the newest checkpoint in ``run``, or from the start, to the end; the last checkpoint's meta.

    Raises Stopped when ``stop`` asks for it (saved), DivergedError when the loss is not finite.
    """
    start = resume(t, run, report)
    meter = Meter(t, start)
    t.method.train()
    with closing(Saver()) as saver, closing(t.loader(start_step=start)) as loader:
        for index, batch in enumerate(meter.waiting(iter(loader)), start):
            step = Step(index, t.total, t.per_epoch, t.spec.run.seed)
            seed_step(t.spec.run.seed, index)
            output = take_step(t, meter.views(batch), step)
            meter.add(output, batch)
            refuse_bad(t, run, batch)
            done = index + 1
            line = meter.line(step, output) if done % t.log_every == 0 or done == t.total else {}
            if t.probe is not None and (done % t.probe_every == 0 or done == t.total):
                line |= meter.aside(t.probe, step)
            if line:
                run.log(line)
                report(line)
                keep_best(t, run, line, saver)
            leave = distributed.largest(stop.requested or 0)  # asked once: what comes later waits for the next step
            if done % t.checkpoint_every == 0 or done == t.total or leave:
                save(t, run, done, saver)
            if leave and done < t.total:
                raise Stopped(f"stopped at step {done} of {t.total}, saved", "the same command goes on", Exit(leave))
    return distributed.by_first(lambda: checkpoint.read_meta(run.last))


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


def resume(t: Training, run: Run, report: Callable[[dict[str, Any]], None]) -> int:
    """Load the newest good checkpoint; the step it was made at, 0 where there is none."""
    skipped: list[str] = []
    path = distributed.by_first(lambda: checkpoint.newest(run.checkpoints, skipped, verify=True))
    start = 0
    if path is not None:
        meta = checkpoint.restore(path, t.method, t.optimizer)
        if meta.scaler is not None:
            t.scaler.load_state_dict(meta.scaler)
        start = meta.step
        if meta.data.fingerprint != t.meta.data.fingerprint:
            raise DataError(
                f"the images at {t.spec.data.path} are not those that {path.name} was trained on "
                f"({meta.data.images} then, {t.meta.data.images} now, or other names or sizes)",
                "restore the set, or start anew with --fresh",
            )
    report({"resumed": start, "checkpoint": str(path) if path else None, "skipped": skipped})
    run.start_metrics(start)
    return start


def save(t: Training, run: Run, done: int, saver: Saver) -> None:
    """Copy the run's state now, which is every process's; it goes to disk while training goes on."""
    if distributed.rank() > 0:
        return
    path = run.numbered(done)
    tensors, meta = checkpoint.snapshot(t.method, t.optimizer, meta_at(t, done))

    def work() -> None:
        checkpoint.write(path, tensors, meta)
        run.keep_last(path, t.spec.run.keep)

    saver.submit(work)


def meta_at(t: Training, step: int, probe: dict[str, float] | None = None) -> Meta:
    """What a checkpoint of ``step`` says beside its tensors; ``probe``, the scores it is kept for."""
    return t.meta.but(step=step, probe=probe, scaler=t.scaler.state_dict() if t.scaler.is_enabled() else None)


def keep_best(t: Training, run: Run, line: dict[str, Any], saver: Saver) -> None:
    """``best``, which one process writes, has the highest score of the probe; of equals, the earliest."""
    if BEST_BY not in line or distributed.rank() > 0:
        return
    saver.wait()  # the best so far may still be on its way
    with contextlib.suppress(CheckpointError, KeyError):
        best = checkpoint.read_meta(run.best)
        if best.step < line["step"] and best.probe and best.probe[BEST_BY] >= line[BEST_BY]:
            return
    probe = {key: value for key, value in line.items() if key.startswith("probe_")}
    snapshot = checkpoint.snapshot(t.method, t.optimizer, meta_at(t, line["step"], probe))
    saver.submit(lambda: checkpoint.write(run.best, *snapshot))


def refuse_bad(t: Training, run: Run, batch: Batch) -> None:
    """Write down unreadable images; DataError where they are more than the spec allows."""
    for index, reason in batch.bad:
        run.record_bad(index, t.source.item_name(index), reason)
    if batch.bad:
        check_bad(t.source, run.bad, fail=t.spec.data.bad_images == "fail", limit=t.spec.data.bad_limit)
