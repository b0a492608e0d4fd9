"""What follows from a spec and the number of images: the length in steps, and how learning rate and decay move."""

from __future__ import annotations

import math

from ..schedule import Schedule, constant, cosine
from .schema import OptimSpec, RunSpec

DEFAULT_EPOCHS = 100.0


def steps_per_epoch(run: RunSpec, images: int) -> int:
    """Return the whole batches in one pass over ``images``."""
    return images // run.batch_size


def total_steps(run: RunSpec, images: int) -> int:
    """Return the length of the run in optimizer steps, at least one."""
    return run.steps or max(1, round((run.epochs or DEFAULT_EPOCHS) * steps_per_epoch(run, images)))


def lr_factor(optim: OptimSpec, batch_size: int) -> float:
    """Return what ``optim.lr`` is multiplied by for this batch size."""
    return {"linear": batch_size / 256, "sqrt": math.sqrt(batch_size / 256), "none": 1.0}[optim.lr_scaling]


def describe_lr(optim: OptimSpec, batch_size: int) -> str:
    """Return the peak learning rate and how it came about, in a line."""
    rule = {"linear": f" x {batch_size}/256", "sqrt": f" x sqrt({batch_size}/256)", "none": ""}[optim.lr_scaling]
    return f"learning rate {optim.lr * lr_factor(optim, batch_size):.4g} = {optim.lr:g}{rule}"


def lr_schedule(optim: OptimSpec, batch_size: int) -> Schedule:
    """Return the learning rate as a function of the step."""
    return Schedule(
        base=optim.lr * lr_factor(optim, batch_size),
        end=optim.lr_end,
        shape=optim.schedule,
        warmup_from=optim.warmup_from,
        warmup_epochs=optim.warmup_epochs,
        warmup_reaches=optim.warmup_reaches,
        per_epoch=optim.per_epoch,
        milestones=optim.milestones,
    )


def weight_decay_schedule(optim: OptimSpec) -> Schedule:
    """Return the weight decay as a function of the step."""
    end = optim.weight_decay_end
    return constant(optim.weight_decay) if end is None else cosine(optim.weight_decay, end)
