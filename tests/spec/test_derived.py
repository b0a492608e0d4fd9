"""What follows from a spec and the number of images: lengths, learning rates and their curves, by hand."""

from __future__ import annotations

import math

import pytest

from sslctl.schedule import Step
from sslctl.spec.derived import (
    describe_lr,
    lr_factor,
    lr_schedule,
    steps_per_epoch,
    total_steps,
    weight_decay_schedule,
)
from sslctl.spec.schema import OptimSpec, RunSpec


@pytest.mark.parametrize(
    ("run", "images", "per_epoch", "total"),
    [
        (RunSpec(batch_size=8), 26, 3, 300),
        (RunSpec(batch_size=8, epochs=2.5), 26, 3, 8),
        (RunSpec(batch_size=8, epochs=0.01), 26, 3, 1),
        (RunSpec(batch_size=8, steps=7), 26, 3, 7),
        (RunSpec(batch_size=32), 26, 0, 1),
    ],
)
def test_lengths_are_of_whole_batches(run: RunSpec, images: int, per_epoch: int, total: int) -> None:
    assert (steps_per_epoch(run, images), total_steps(run, images)) == (per_epoch, total)


@pytest.mark.parametrize(("scaling", "factor"), [("linear", 4.0), ("sqrt", 2.0), ("none", 1.0)])
def test_learning_rates_follow_the_batch(scaling: str, factor: float) -> None:
    optim = OptimSpec(lr=0.3, lr_scaling=scaling)  # type: ignore[arg-type]
    assert lr_factor(optim, 1024) == factor
    assert describe_lr(optim, 1024).startswith(f"learning rate {0.3 * factor:.4g} = 0.3")
    assert lr_schedule(optim, 1024).base == pytest.approx(0.3 * factor)


def test_the_curve_is_that_of_the_spec() -> None:
    optim = OptimSpec(lr=1.0, lr_scaling="none", warmup_epochs=2, lr_end=0.1, schedule="cosine")
    schedule = lr_schedule(optim, 256)
    rates = [schedule.at(Step(index, 100, 10)) for index in (0, 10, 20, 60, 99)]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(1.0)
    assert rates[3] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 40 / 80)) / 2, abs=0.02)
    assert rates[4] == pytest.approx(0.1, abs=0.01)


def test_weight_decay_is_constant_or_a_cosine() -> None:
    steps = [Step(index, 100, 10) for index in (0, 50, 99)]
    constant = weight_decay_schedule(OptimSpec(weight_decay=0.05))
    assert [constant.at(step) for step in steps] == [0.05, 0.05, 0.05]
    rising = weight_decay_schedule(OptimSpec(weight_decay=0.04, weight_decay_end=0.4))
    assert [rising.at(step) for step in steps] == pytest.approx([0.04, 0.22, 0.4], abs=0.005)
