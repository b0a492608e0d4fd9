"""The batch-size finder on real steps: where it stops, what it says, that it never fills memory to the brim."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from sslctl.engine.setup import open_inputs
from sslctl.errors import SpecError
from sslctl.methods.resolve import resolve
from sslctl.profiling import batch_finder as batch_size
from sslctl.profiling.batch_finder import BatchSearch, Trial, batch_that_fits, find_batch, predict_memory
from sslctl.profiling.estimate import FILL, Size, estimate, parts_that_fit
from sslctl.runtime.device import peak_memory

from ..cli.calling import call
from ..training import picture_folder, small_spec, training

CPU = torch.device("cpu")
MIB = 1 << 20


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return picture_folder(tmp_path_factory.mktemp("pictures"), 40)


def surroundings(pictures, name="simclr", **sections):
    return open_inputs(resolve(small_spec(pictures, name, **sections)))


def test_sizes_double_until_there_are_no_more_images(pictures):
    told = []
    found = find_batch(surroundings(pictures), report=told.append)
    assert [trial.batch for trial in found.trials] == [4, 8, 16, 32]  # of 36 images
    assert found.trials == told and (found.ended, found.largest) == ("images", 32)
    assert all(trial.rate == trial.batch / trial.seconds > 0 for trial in told)
    assert [t.batch for t in find_batch(surroundings(pictures), upto=6).trials] == [4, 6]


def test_a_batch_is_a_multiple_of_passes(pictures):
    user = small_spec(pictures, "moco-v2", "sgd", optim={"accumulate": 2})
    user["method"] |= {"queue": 8}  # and eight groups of batch norm, for which a pass may be too small
    assert [trial.batch for trial in find_batch(open_inputs(resolve(user)), upto=16).trials] == [8, 16]


def test_what_steps_need_is_near_the_estimate_and_foretold(pictures, tmp_path):
    """In a process of its own, which holds nothing yet that would hide it; gaps of the allocator are in it."""
    wide = {"views": {"multi_crop": "2x128"}, "backbone": {"args": {"channels": [64, 64, 64, 64]}}}
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(small_spec(pictures, **wide)))
    words = ("bench", "--spec", str(spec), "--find-batch", "--json")
    done = subprocess.run([sys.executable, "-m", "sslctl", *words], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    trials = [Trial(t["batch"], t["seconds"], t["memory"]) for t in found["trials"]]
    assert [trial.batch for trial in trials] == [4, 8, 16, 32]
    needed = trials[3].memory - trials[2].memory  # by 16 images
    assert needed > 100 * MIB, "or it says nothing"
    assert 0.3 < 16 * found["image_bytes_estimated"] / needed < 2.5
    foretold = predict_memory(32, trials[:3], found["image_bytes_estimated"]) - trials[2].memory
    assert 0.5 * needed < foretold < 3 * needed  # rather too much than too little


def test_it_stops_before_memory_is_full(pictures, monkeypatch):
    """Room for ten images more than the process holds: the sixteen from 16 to 32 are never tried."""
    each, held = 500 * MIB, peak_memory(CPU)
    monkeypatch.setattr(batch_size, "estimate", lambda t: Size(1, 1, 0, each, 1, None))
    monkeypatch.setattr(batch_size, "memory_in_use", lambda device: held)
    monkeypatch.setattr(batch_size, "free_memory", lambda device: int((held + 10 * each) / FILL) - held)
    full = find_batch(surroundings(pictures))
    assert (full.ended, full.largest) == ("memory", 16)
    assert full.reason.startswith("32 images would need") and full.room == pytest.approx(held + 10 * each, abs=2)
    monkeypatch.setattr(batch_size, "free_memory", lambda device: 0)
    none = find_batch(surroundings(pictures))
    assert (none.ended, none.trials, none.largest) == ("memory", [], None)
    monkeypatch.setattr(batch_size, "free_memory", lambda device: None)  # no larger than the spec's own, 8
    assert find_batch(surroundings(pictures)).largest == 8


def test_running_out_all_the_same_is_an_answer(pictures, monkeypatch):
    real = batch_size.training_step

    def step(t, views):
        if len(views.index) > 8:
            torch.empty(1 << 50)
        return real(t, views)

    monkeypatch.setattr(batch_size, "training_step", step)
    found = find_batch(surroundings(pictures))
    assert (found.ended, found.largest, found.reason) == ("memory", 8, "16 images ran out of memory")

    def broken(t, views):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(batch_size, "training_step", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        find_batch(surroundings(pictures))


def test_slow_steps_end_it_and_several_processes_are_refused(pictures, monkeypatch):
    monkeypatch.setattr(batch_size, "SLOW", 1e-9)
    found = find_batch(surroundings(pictures))
    assert (found.ended, found.largest) == ("time", 4)
    monkeypatch.setattr(batch_size.distributed, "world_size", lambda: 2)
    with pytest.raises(SpecError, match="one process"):
        find_batch(surroundings(pictures))


def test_memory_is_foretold_from_what_smaller_batches_needed():
    straight = [Trial(n, 1.0, 1000 + 10 * n) for n in (4, 8, 16)]
    assert predict_memory(32, straight, 0) == 1320
    assert (
        predict_memory(32, straight, 100) == 1160 + 16 * 100
    )  # the graph alone keeps more: the process had room to spare
    assert predict_memory(32, straight[:1], 7) == 1040 + 28 * 7
    square = [Trial(n, 1.0, 1000 + n * n) for n in (4, 8, 16)]  # every image beside every other
    assert predict_memory(32, square, 0) == 1000 + 32 * 32


def test_the_batch_of_the_spec_is_kept_in_passes_that_fit(pictures):
    spec = resolve(small_spec(pictures, run={"batch_size": 96}))
    trials = [Trial(n, 1.0, 1000 + 10 * n) for n in (4, 8, 16, 32)]
    found = BatchSearch(trials, "memory", "", room=1400, views=0)
    assert found.accumulate(spec) == 3  # 96 in 3 passes of 32
    assert BatchSearch(trials, "memory", "", room=1300, views=1).accumulate(spec) == 6  # 80 views beside a batch of 16
    assert BatchSearch(trials, "memory", "", room=1400, views=100).accumulate(spec) is None
    assert BatchSearch(trials, "images", "", room=1400, views=0).accumulate(spec) is None
    assert found.accumulate(resolve(small_spec(pictures, run={"batch_size": 32}))) is None
    twice = resolve(small_spec(pictures, run={"batch_size": 96}, optim={"accumulate": 2}))
    assert found.accumulate(twice) == 6  # a trial of 32 was two passes of 16
    assert parts_that_fit(7, lambda parts: parts > 1) is None  # 7 passes of one image are no passes


def test_the_smallest_batch_that_is_nearly_as_fast_as_any():
    rates = {4: 10.0, 8: 50.0, 16: 95.0, 32: 100.0, 64: 97.0}
    found = BatchSearch([Trial(n, n / rate, 1) for n, rate in rates.items()], "images", "", None, 0)
    assert (found.enough, found.largest) == (16, 64)
    assert BatchSearch([], "memory", "", 1, 0).enough is None


def test_passes_hold_the_views_of_the_whole_step(pictures):
    one = estimate(training(small_spec(pictures, run={"batch_size": 16})))
    four = estimate(training(small_spec(pictures, run={"batch_size": 16}, optim={"accumulate": 4})))
    views = 2 * 3 * 4 * (32**2 + 16**2)
    assert (one.views, four.images, four.passes) == (views, 4, 4)
    assert one.memory - four.memory == 12 * (one.per_image - views)
    tight = {"fixed": 1000, "per_image": 110, "images": 12, "views": 10}
    assert Size(1, 1, free=3000, **tight).accumulate == 1
    cut = Size(1, 1, free=2500, **tight)  # 2125 may be filled, by 1000, 12 views of 10 and 6 of the 12 times 100
    assert not cut.fits and cut.accumulate == 2
    assert Size(1, 1, free=1400, **tight).accumulate is None


def test_the_command_tells_a_line_a_batch_and_how_to_keep_the_recipe_s(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(batch_size, "find_batch", lambda inputs, report: FULL)
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(small_spec(pictures, run={"batch_size": 32})))
    words = ("bench", "--spec", spec, "--find-batch")
    text = call(*words).stdout.splitlines()
    assert [line.split()[0] for line in text[:3]] == ["batch", "4", "8"]
    assert text[3:] == [
        "none larger was tried: because",
        "--batch-size 8 is the largest that was tried; from 4 on, more pays little",
        "--batch-size 32 --set optim.accumulate=4 keeps the batch of the spec, in passes of 8 images",
    ]
    found = json.loads(call(*words, "--json").stdout)
    assert (found["largest_batch_tried"], found["accumulate"], found["ended_by"]) == (8, 4, "memory")
    assert found["trials"][1] == {"batch": 8, "seconds": 0.8, "memory": 1080, "images_per_second": 10.0}


def test_a_run_without_memory_is_told_what_to_type(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("sslctl.engine.loop.take_step", lambda *_: torch.empty(1 << 50))
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(small_spec(pictures)))
    done = call("pretrain", "--spec", spec, "--out", tmp_path / "run", "--json")
    assert done.exit_code == 5, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["message"] == "out of memory" and "--find-batch" in error["hint"]


def test_auto_becomes_a_number_with_which_the_run_goes_on(pictures, tmp_path, monkeypatch):
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(small_spec(pictures, run={"batch_size": 6, "steps": 2})))
    words = ("pretrain", "--spec", spec, "--out")
    done = call(*words, tmp_path / "auto", "--batch-size", "auto")
    assert done.exit_code == 0 and "--batch-size auto: 6\n" in done.stderr  # of 36 images, 6 fit
    assert call(*words, tmp_path / "plain").exit_code == 0
    a, b = (load_file(tmp_path / name / "checkpoints" / "last.safetensors") for name in ("auto", "plain"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

    monkeypatch.setattr(batch_size, "free_memory", lambda device: 0)  # nothing fits any more, and none is asked
    again = call(*words, tmp_path / "auto", "--batch-size", "auto", "--set", "run.batch_size=8")
    assert again.exit_code == 0 and "--batch-size auto: 6, as in" in again.stderr
    fresh = call(*words, tmp_path / "auto", "--batch-size", "auto", "--fresh")
    assert fresh.exit_code == 5 and "4 images would need" in fresh.stderr
    assert call(*words[:-1], "--batch-size", "auto", "--dry-run").exit_code == 2  # which run would go on?
    assert call(*words[:-1], "--batch-size", "many", "--dry-run").exit_code == 2


def test_auto_is_less_than_the_recipe_s_only_where_memory_says_so(pictures, monkeypatch):
    inputs = surroundings(pictures, run={"batch_size": 32})
    monkeypatch.setattr(batch_size, "SLOW", 1e-9)
    assert batch_that_fits(inputs)[0] == 32  # too slow to try, not too large
    monkeypatch.setattr(batch_size, "estimate", lambda t: Size(1, 1, 0, 1 << 50, 1, None))
    monkeypatch.setattr(batch_size, "too_large", lambda *_: None)
    assert batch_that_fits(inputs)[0] == 4


FULL = BatchSearch([Trial(4, 0.4, 1040), Trial(8, 0.8, 1080)], "memory", "because", 1100, 0)
