"""A run that was stopped and went on ends in the same bits as one that was not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sslctl.engine.loop import train
from sslctl.errors import CheckpointError, DataError, Stopped
from sslctl.runs import checkpoint
from sslctl.runs.directory import Run

from ..training import SMALL, StopAfter, picture_folder, silent, small_spec, training


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return picture_folder(tmp_path_factory.mktemp("pictures"))


def whole(user, path: Path):
    with Run(path) as run:
        train(training(user), run, StopAfter(99), silent)
    return checkpoint.read(path / "checkpoints" / "last.safetensors")[1]


def interrupted(user, path: Path, at: int, **other):
    """Stopped after ``at`` steps, then continued by a process that began from other weights and has other workers."""
    with Run(path) as run:
        stop = StopAfter(at)
        with pytest.raises(Stopped, match=f"step {at} of"):
            train(training(user), run, stop, stop.report)
    changed = {**user, "data": {**user["data"], **other}}
    with Run(path) as run:
        train(training(changed, weights_seed=999), run, StopAfter(99), silent)
    return checkpoint.read(path / "checkpoints" / "last.safetensors")[1]


def assert_same(a, b) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


OTHERS = [("dino", optimizer) for optimizer in ("sgd", "lars", "larc")]  # which freezes a layer at first


@pytest.mark.parametrize(("method", "optimizer"), [*((method, "adamw") for method in SMALL), *OTHERS])
def test_resume_is_bit_exact_into_other_weights(method, optimizer, pictures, tmp_path):
    user = small_spec(pictures, method, optimizer)
    expected = whole(user, tmp_path / "whole")
    assert any(name.startswith("optimizer.") for name in expected)
    assert_same(expected, interrupted(user, tmp_path / "parts", at=3))


def test_resume_is_bit_exact_with_another_number_of_workers(pictures, tmp_path):
    user = small_spec(pictures)
    assert_same(whole(user, tmp_path / "whole"), interrupted(user, tmp_path / "parts", at=3, workers=2))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_resume_is_bit_exact_in_half_precision_with_accumulation(precision, pictures, tmp_path):
    user = small_spec(pictures, "swav", run={"precision": precision}, optim={"accumulate": 2})
    assert_same(whole(user, tmp_path / "whole"), interrupted(user, tmp_path / "parts", at=3))


def test_the_comparison_would_notice_another_seed(pictures, tmp_path):
    a = whole(small_spec(pictures), tmp_path / "a")
    b = whole(small_spec(pictures, run={"seed": 1}), tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_same(a, b)


def test_metric_lines_are_those_of_the_uninterrupted_run(pictures, tmp_path):
    user = small_spec(pictures)
    whole(user, tmp_path / "whole")
    interrupted(user, tmp_path / "parts", at=3)

    def lines(path: Path):
        found = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        machine = ("images_per_second", "data_wait", "augment", "memory_gib")
        return [{k: v for k, v in line.items() if k not in machine} for line in found]

    assert [line["step"] for line in lines(tmp_path / "parts")] == [1, 2, 3, 4, 5, 6]
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")


def test_a_damaged_newest_checkpoint_is_passed_over_and_named(pictures, tmp_path):
    user = small_spec(pictures)
    expected = whole(user, tmp_path / "whole")
    with Run(tmp_path / "parts") as run:
        stop = StopAfter(4)
        with pytest.raises(Stopped):
            train(training(user), run, stop, stop.report)
    flip_a_byte(run.numbered(4))  # last is the same file
    reports = []
    with Run(tmp_path / "parts") as run:
        train(training(user), run, StopAfter(99), reports.append)
    assert reports[0]["resumed"] == 2
    assert "step-000000004.safetensors" in " ".join(reports[0]["skipped"])
    assert_same(expected, checkpoint.read(tmp_path / "parts" / "checkpoints" / "last.safetensors")[1])


def test_without_a_good_checkpoint_the_run_does_not_begin_anew_in_silence(pictures, tmp_path):
    user = small_spec(pictures)
    whole(user, tmp_path / "r")
    for path in (tmp_path / "r" / "checkpoints").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    with Run(tmp_path / "r") as run, pytest.raises(CheckpointError, match="no checkpoint can be used"):
        train(training(user), run, StopAfter(99), silent)


def test_other_images_than_those_trained_on_are_refused(tmp_path):
    pictures = picture_folder(tmp_path / "pictures")
    user = small_spec(pictures)
    whole(user, tmp_path / "r")
    next(pictures.rglob("*.jpg")).unlink()
    longer = {**user, "run": {**user["run"], "steps": 8}}
    with Run(tmp_path / "r") as run, pytest.raises(DataError, match="not those that"):
        train(training(longer), run, StopAfter(99), silent)


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
