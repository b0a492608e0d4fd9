"""The loop, whole on one screen; it knows no method by name."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import torch

from ..data.loader import Batch
from ..data.unreadable import check_bad
from ..errors import CheckpointError, DataError, Exit, Stopped
from ..methods.base import Output
from ..runs import checkpoint
from ..runs.directory import Run
from ..runs.meta import Meta
from ..runtime import distributed
from ..runtime.device import SideStream
from ..runtime.seeding import seed_step
from ..runtime.stop import StopRequest
from ..schedule import Step
from ..views.augment import Views
from .background_writer import BackgroundWriter
from .meter import Meter
from .optimizers import clip_gradients
from .setup import Training

BEST_BY = "probe_knn"


def train(t: Training, run: Run, stop: StopRequest, report: Callable[[dict[str, Any]], None]) -> Meta:
    """Train from the newest checkpoint in ``run``, or from the start, to the end; return the last checkpoint's meta.

    Raises Stopped when ``stop`` asks for it (saved), DivergedError when the loss is not finite.
    """
    start = resume(t, run, report)
    meter, side_stream = Meter(t), SideStream(t.device)
    t.method.train()
    with closing(BackgroundWriter()) as writer, closing(t.loader(start_step=start)) as loader:
        for index, batch in enumerate(meter.waiting(iter(loader)), start):
            step = Step(index, t.total, t.per_epoch, t.spec.run.seed)
            seed_step(t.spec.run.seed, index)
            with meter.augmenting():
                views = side_stream(partial(t.augment, batch, t.device))
            output = take_step(t, views, step)
            meter.add(output, batch)
            list_unreadable(t, run, batch)
            done = index + 1
            line = meter.line(step, output) if done % t.log_every == 0 or done == t.total else {}
            if t.probe is not None and (done % t.probe_every == 0 or done == t.total):
                with meter.paused():
                    line |= probe(t.probe, step)
            if line:
                run.log(line)
                report(line)
                keep_best(t, run, line, writer)
            leave = distributed.largest(stop.requested or 0)  # asked once: what comes later waits for the next step
            if done % t.checkpoint_every == 0 or done == t.total or leave:
                save(t, run, done, writer)
            if leave and done < t.total:
                raise Stopped(f"stopped at step {done} of {t.total}, saved", "the same command goes on", Exit(leave))
    return distributed.by_first(lambda: checkpoint.read_meta(run.last))


def take_step(t: Training, views: Views, step: Step) -> Output:
    """Take one optimizer step on a batch, in ``optim.accumulate`` parts."""
    optim = t.spec.optim
    for group in t.optimizer.param_groups:
        group["lr"] = (t.lr.at(step) if group["scheduled"] else t.lr.base) * group["lr_scale"]
        group["weight_decay"] = t.weight_decay.at(step) if group["decay"] else 0.0

    t.optimizer.zero_grad(set_to_none=True)
    for part in views.chunk(optim.accumulate):
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


def resume(t: Training, run: Run, report: Callable[[dict[str, Any]], None]) -> int:
    """Load the newest good checkpoint; return the step that it was made at, 0 where there is none.

    Raises DataError where the images are not those that the checkpoint was trained on.
    """
    skipped: list[str] = []
    path = distributed.by_first(lambda: checkpoint.newest(run.checkpoints, skipped, verify=True))
    start = 0
    if path is not None:
        meta = checkpoint.restore(path, t.method, t.optimizer)
        if meta.scaler is not None:
            t.scaler.load_state_dict(meta.scaler)
        start, then, now = meta.step, meta.data, t.meta.data
        if then.fingerprint != now.fingerprint:
            raise DataError(
                f"the images at {t.spec.data.path} are not those that {path.name} was trained on "
                f"({then.images} then, {now.images} now, or other names or sizes)",
                "restore the set, or start over with --fresh",
            )
    report({"resumed": start, "checkpoint": str(path) if path else None, "skipped": skipped})
    run.start_metrics(start)
    return start


def probe(score: Callable[[Step], dict[str, float]], step: Step) -> dict[str, Any]:
    """Return what the online probe says of the encoder at ``step``, as part of a metric line."""
    begin = time.perf_counter()
    scores = score(step)
    return {
        "step": step.index + 1,
        "epoch": step.epochs_done,
        **scores,
        "probe_seconds": time.perf_counter() - begin,
    }


def save(t: Training, run: Run, done: int, writer: BackgroundWriter) -> None:
    """Copy the run's state now, which is every process's; it goes to disk while training goes on."""
    if distributed.rank() > 0:
        return
    path = run.numbered(done)
    tensors, meta = checkpoint.snapshot(t.method, t.optimizer, meta_at(t, done))

    def work() -> None:
        checkpoint.write(path, tensors, meta)
        run.keep_last(path, t.spec.run.keep)

    writer.submit(work)


def meta_at(t: Training, step: int, scores: dict[str, float] | None = None) -> Meta:
    """Return what a checkpoint of ``step`` says beside its tensors; ``scores`` of the probe that it is kept for."""
    return t.meta.but(step=step, probe=scores, scaler=t.scaler.state_dict() if t.scaler.is_enabled() else None)


def keep_best(t: Training, run: Run, line: dict[str, Any], writer: BackgroundWriter) -> None:
    """Write ``best`` where the probe's score is the highest so far; of equal ones the earliest stays."""
    if BEST_BY not in line or distributed.rank() > 0:
        return
    writer.wait()  # the best so far may still be on its way
    with contextlib.suppress(CheckpointError, KeyError):
        best = checkpoint.read_meta(run.best)
        if best.step < line["step"] and best.probe and best.probe[BEST_BY] >= line[BEST_BY]:
            return
    scores = {key: value for key, value in line.items() if key.startswith("probe_")}
    snapshot = checkpoint.snapshot(t.method, t.optimizer, meta_at(t, line["step"], scores))
    writer.submit(lambda: checkpoint.write(run.best, *snapshot))


def list_unreadable(t: Training, run: Run, batch: Batch) -> None:
    """Write down unreadable images. Raises DataError where they are more than the spec allows."""
    for index, reason in batch.bad:
        run.record_bad(index, t.source.item_name(index), reason)
    if batch.bad:
        check_bad(t.source, run.bad, fail=t.spec.data.bad_images == "fail", limit=t.spec.data.bad_limit)
