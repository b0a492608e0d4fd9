"""What a metric line says: means since the last one, rates, health; and when a run is stopped by what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sslctl.engine.meter import COLLAPSE_FROM, COLLAPSE_PATIENCE, Meter
from sslctl.engine.setup import Training
from sslctl.errors import DivergedError
from sslctl.methods.base import Output
from sslctl.schedule import Step

from ..training import picture_folder, small_spec, training

LATER = Step(COLLAPSE_FROM, 200, 2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"))


def run(pictures: Path, **section: Any) -> Training:
    return training(small_spec(pictures, run=section))


def output(loss: float, spread: float = 1.0, **logs: float) -> Output:
    z = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    return Output(torch.tensor(loss), {k: torch.tensor(v) for k, v in logs.items()}, 1 + spread * z)


def test_a_line_has_the_mean_loss_and_the_logs_of_the_last_step(pictures: Path) -> None:
    t = run(pictures)
    meter, batch = Meter(t), next(iter(t.loader(start_step=0)))
    for loss in (1.0, 2.0, 6.0):
        meter.add(output(loss), batch)
    line = meter.line(Step(2, 6, 2), output(6.0, acc=0.25))
    assert (line["step"], line["epoch"], line["loss"], line["acc"]) == (3, 1.5, 3.0, 0.25)
    assert line["lr"] == t.lr.at(Step(2, 6, 2)) and line["health"].startswith("learning") and line["rank_of"] == 8
    meter.add(output(5.0), batch)
    assert meter.line(Step(3, 6, 2), output(5.0))["loss"] == 5.0, "from the last line on"


def test_batches_pass_unchanged_and_shares_of_time_are_shares(pictures: Path) -> None:
    t = run(pictures)
    meter = Meter(t)
    batches = list(meter.waiting(iter(t.loader(start_step=0))))
    assert len(batches) == t.total and meter.waited > 0
    with meter.augmenting():
        t.augment(batches[0], t.device)
    meter.add(output(1.0), batches[0])
    line = meter.line(Step(0, 6, 2), output(1.0))
    assert 0 < line["augment"] <= 1 and 0 < line["data_wait"] <= 1 and line["memory_gib"] > 0
    assert meter.waited == meter.augmented == meter.images == 0


def test_what_is_paused_counts_in_no_rate(pictures: Path) -> None:
    meter = Meter(run(pictures))
    before = meter.since
    with meter.paused():
        sum(range(100_000))
    assert meter.since > before


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run_at_once(pictures: Path, loss: float) -> None:
    t = run(pictures)
    meter, batch = Meter(t), next(iter(t.loader(start_step=0)))
    with pytest.raises(DivergedError, match="the loss is") as stopped:
        meter.add(output(loss), batch)
    assert stopped.value.exit_code == 6
    with pytest.raises(DivergedError, match="at step 1"):
        Meter(t, losses=[torch.tensor(loss)]).line(Step(0, 6, 2), output(1.0))


@pytest.mark.parametrize("stop", [True, False])
def test_a_collapsed_run_is_stopped_after_some_lines_where_asked_for(pictures: Path, stop: bool) -> None:
    t = run(pictures, fail_on_collapse=stop)
    meter, batch = Meter(t), next(iter(t.loader(start_step=0)))

    def line(step: Step, spread: float = 0.0) -> str:
        meter.add(output(1.0), batch)
        return str(meter.line(step, output(1.0, spread))["health"])

    for _ in range(COLLAPSE_PATIENCE + 1):
        assert line(Step(3, 200, 2)).startswith("collapsed")  # as random networks may look
    for _ in range(COLLAPSE_PATIENCE - 1):
        assert line(LATER).startswith("collapsed")
    assert line(LATER, spread=1.0).startswith("learning")  # which starts the count again
    for _ in range(COLLAPSE_PATIENCE - 1):
        line(LATER)
    if stop:
        with pytest.raises(DivergedError, match=f"collapsed at step {COLLAPSE_FROM + 1}"):
            line(LATER)
    else:
        assert line(LATER).startswith("collapsed")


def test_the_measured_training_stays_as_it_is(pictures: Path) -> None:
    t = run(pictures)
    frozen = replace(t)
    meter = Meter(t)
    meter.add(output(1.0), next(iter(t.loader(start_step=0))))
    meter.line(Step(0, 6, 2), output(1.0))
    assert t == frozen
