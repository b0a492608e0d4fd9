"""The loop on small real runs: what it leaves on disk, how it stops, and one step written out by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from sslctl.engine.background_writer import BackgroundWriter
from sslctl.engine.loop import BEST_BY, keep_best, probe, take_step, train
from sslctl.errors import DataError, DivergedError, Exit, Stopped
from sslctl.methods.base import Output
from sslctl.profiling.estimate import noise_views
from sslctl.runs.checkpoint import read_meta
from sslctl.runs.directory import Run
from sslctl.schedule import Step

from ..training import StopAfter, picture_folder, silent, small_spec, training


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"))


def names(run: Run) -> list[str]:
    return sorted(path.name for path in run.checkpoints.glob("*.safetensors"))


def test_a_run_leaves_its_lines_and_the_newest_checkpoints(pictures: Path, tmp_path: Path) -> None:
    t = training(small_spec(pictures, run={"log_every": 4, "checkpoint_every": 2, "keep": 2}))
    reports: list[dict[str, Any]] = []
    with Run(tmp_path / "run") as run:
        meta = train(t, run, StopAfter(99), reports.append)
    assert meta.step == 6 and names(run) == [
        "last.safetensors",
        "step-000000004.safetensors",
        "step-000000006.safetensors",
    ]
    assert reports[0] == {"resumed": 0, "checkpoint": None, "skipped": []}
    assert [line["step"] for line in reports[1:]] == [4, 6] and run.lines() == reports[1:]
    assert read_meta(run.last) == read_meta(run.numbered(6)) == meta


def test_a_stop_saves_first_and_says_so_with_its_exit_code(pictures: Path, tmp_path: Path) -> None:
    t = training(small_spec(pictures, run={"checkpoint_every": 100}))
    stop = StopAfter(3)
    with Run(tmp_path / "run") as run, pytest.raises(Stopped, match="stopped at step 3 of 6, saved") as stopped:
        train(t, run, stop, stop.report)
    assert stopped.value.exit_code == Exit.STOPPED and names(run) == ["last.safetensors", "step-000000003.safetensors"]


def test_a_stop_at_the_last_step_is_the_end(pictures: Path, tmp_path: Path) -> None:
    stop = StopAfter(6)
    with Run(tmp_path / "run") as run:
        assert train(training(small_spec(pictures)), run, stop, stop.report).step == 6


def test_a_loss_that_diverges_ends_the_run_and_leaves_the_good_checkpoints(pictures: Path, tmp_path: Path) -> None:
    t = training(
        small_spec(
            pictures,
            optimizer="sgd",
            optim={"lr": 1000, "weight_decay": 1000, "warmup_epochs": 0},
            run={"steps": 20, "checkpoint_every": 1},
        )
    )
    with Run(tmp_path / "run") as run, pytest.raises(DivergedError) as diverged:
        train(t, run, StopAfter(99), silent)
    assert diverged.value.exit_code == Exit.DIVERGED
    assert all(read_meta(path).step < 20 for path in run.checkpoints.glob("*.safetensors"))


def test_unreadable_images_are_listed_and_end_a_strict_run(tmp_path: Path) -> None:
    pictures = picture_folder(tmp_path / "pictures")
    (pictures / "class0" / "000.jpg").write_bytes(b"no picture")
    with Run(tmp_path / "patient") as run:
        train(training(small_spec(pictures, data={"bad_limit": 1, "in_memory": False})), run, StopAfter(99), silent)
        assert list(run.bad) == [0] and "000.jpg" in run.bad_file.read_text()
    with Run(tmp_path / "strict") as run, pytest.raises(DataError, match=r"000\.jpg"):
        train(
            training(small_spec(pictures, data={"bad_images": "fail", "in_memory": False})), run, StopAfter(99), silent
        )


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_a_step_is_schedules_backward_clipping_and_hooks_in_that_order(pictures: Path, clip: float) -> None:
    """By hand on a copy, to the bit."""
    t = training(small_spec(pictures, "dino", "sgd", optim={"clip": clip, "weight_decay": 0.1}))
    views, step = noise_views(t, 8), Step(1, t.total, t.per_epoch)
    mine = copy.deepcopy(t.method).train()
    other = copy.deepcopy(t.optimizer)
    t.method.train()
    torch.manual_seed(1)
    take_step(t, views, step)

    own = dict(mine.named_parameters())
    for group in other.param_groups:
        group["params"] = [own[name] for name in group["names"]]
        group["lr"] = t.lr.at(step) * group["lr_scale"]
        group["weight_decay"] = t.weight_decay.at(step) if group["decay"] else 0.0
    torch.manual_seed(1)
    mine(views, step).loss.backward()
    if clip:
        for p in mine.parameters():
            if p.grad is not None and t.spec.optim.clip_each:
                torch.nn.utils.clip_grad_norm_([p], clip)
        if not t.spec.optim.clip_each:
            torch.nn.utils.clip_grad_norm_(mine.parameters(), clip)
    mine.after_backward(step)
    other.step()
    mine.after_step(step)
    for (name, a), b in zip(t.method.named_parameters(), mine.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7, msg=name)


def test_parts_of_a_batch_give_the_mean_gradient(pictures: Path) -> None:
    t = training(small_spec(pictures, "simclr", "sgd", optim={"accumulate": 2}))
    t.method.eval()  # no statistics of a batch, and no depth dropped
    views, step = noise_views(t, 8), Step(1, t.total, t.per_epoch)
    take_step(t, views, step)
    found = {name: p.grad.clone() for name, p in t.method.named_parameters() if p.grad is not None}
    t = training(small_spec(pictures, "simclr", "sgd"))
    t.method.eval()
    losses: list[Output] = [t.method(part, step) for part in views.chunk(2)]
    (sum(output.loss for output in losses) / 2).backward()  # type: ignore[union-attr]
    assert found
    for name, p in t.method.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(found[name], p.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_the_best_is_that_of_the_highest_score_and_of_equal_ones_the_first(pictures: Path, tmp_path: Path) -> None:
    t = training(small_spec(pictures))
    with Run(tmp_path / "run") as run:
        for step, score in ((2, 0.3), (4, 0.5), (6, 0.5), (8, 0.4)):
            writer = BackgroundWriter()
            keep_best(t, run, {"step": step, BEST_BY: score, "loss": 1.0}, writer)
            writer.close()
        best = read_meta(run.best)
        assert best.step == 4 and best.probe == {BEST_BY: 0.5}
        writer = BackgroundWriter()
        keep_best(t, run, {"step": 9, "loss": 1.0}, writer)  # a line without a score
        keep_best(t, run, {"step": 3, BEST_BY: 0.1}, writer)  # as after going back to step 2
        writer.close()
        assert read_meta(run.best).step == 3


def test_a_probe_becomes_part_of_a_line() -> None:
    line = probe(lambda step: {"probe_knn": step.index / 10}, Step(4, 10, 2))
    assert line.pop("probe_seconds") >= 0
    assert line == {"step": 5, "epoch": 2.5, "probe_knn": 0.4}
