"""What a run costs before it begins: its limit, its parts, the memory that it needs."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from sslctl.cli.main import app
from sslctl.engine.loop import train
from sslctl.profiling import breakdown as benching
from sslctl.profiling.breakdown import Bench, bench
from sslctl.profiling.estimate import Size, estimate, noise_views
from sslctl.profiling.limit import EncoderOnly, arrange, watch
from sslctl.runs.directory import Run
from sslctl.runs.encoder import load_encoder

from ..training import StopAfter, picture_folder, silent, small_spec, training

GOOD = Bench(
    images=100, decode=0.1, crop=0.1, augment=0.01, step=1.0, encoder=0.96, update=0.02, ratio=1.04, workers=1,
    flops=1e9, peak_flops=2e9, memory=1 << 30, precision="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return picture_folder(tmp_path_factory.mktemp("pictures"))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # (images, side, learns) of every pass: 8 images, two views of 32 px and two of 16
        ("simclr", [(16, 32, True), (16, 16, True)]),
        ("dino", [(16, 32, False), (16, 32, True), (16, 16, True)]),
    ],
)
def test_the_limit_is_the_passes_of_a_real_step(pictures, method, expected):
    t = training(small_spec(pictures, method))
    calls = watch(t, noise_views(t, 8))
    assert [(call.images, call.shape[1], call.learns) for call in calls] == expected
    each = arrange(calls, 8, grouped=False)
    assert [call.images for call in each] == [8] * sum(n // 8 for n, _, _ in expected)
    assert arrange(each, 8, grouped=True) == calls
    bare = EncoderOnly(t, noise_views(t, 8))
    learner = next(net for net, _, learns in bare.passes if learns)
    before = [p.clone() for p in learner.parameters()]
    own = [p.clone() for p in t.method.student.backbone.parameters()]
    bare.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.parameters(), strict=True)), "it trains"
    assert all(torch.equal(a, b) for a, b in zip(own, t.method.student.backbone.parameters(), strict=True)), "a copy"


def test_every_part_is_measured_and_adds_up(pictures):
    found = bench(training(small_spec(pictures)), rounds=1)
    for name, value in dataclasses.asdict(found).items():
        assert name in ("workers", "precision", "start") or value > 0, name
    assert found.objective == pytest.approx(max(0, found.step - found.encoder - found.update))
    assert 0 < found.share_of_peak < 1
    total = found.decode + found.crop + found.augment + found.step  # no worker: one after the other
    assert found.rate == pytest.approx(found.images / total)


@pytest.mark.parametrize(
    ("change", "word", "advice"),
    [
        ({}, "encoder", "--precision bf16"),
        ({"precision": "bfloat16"}, "encoder", "--arch"),
        ({"decode": 3.0}, "loader", "data pack"),
        ({"crop": 3.0}, "loader", "--workers 4"),
        ({"augment": 0.5}, "augment", "views"),
        ({"encoder": 0.6}, "objective", "prototypes"),
        ({"encoder": 0.6, "update": 0.35}, "update", "--batch-size"),
    ],
)
def test_the_verdict_names_what_holds_the_run_up(change, word, advice):
    found = dataclasses.replace(GOOD, **change)
    assert found.verdict()[0] == word
    assert advice in found.verdict()[1]


def test_sets_in_memory_need_no_loader():
    found = dataclasses.replace(GOOD, decode=0.0, crop=0.0, workers=0)
    assert found.loader_rate == float("inf")
    assert found.rate == pytest.approx(100 / 1.01)
    assert found.as_dict()["loader_images_per_second"] is None


def test_estimating_leaves_the_run_as_it_is(pictures):
    t = training(small_spec(pictures, "swav"))
    before = {name: value.clone() for name, value in t.method.state_dict().items()}
    state = torch.get_rng_state()
    size = estimate(t)
    assert all(torch.equal(before[name], value) for name, value in t.method.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert size.memory == size.fixed + 8 * size.per_image > 0
    twice = estimate(training(small_spec(pictures, "swav", run={"batch_size": 16})))
    assert twice.images == 2 * size.images
    assert twice.fixed == size.fixed


def test_the_largest_batch_fills_what_is_free():
    size = estimate_of(fixed=1000, per_image=10, free=10_000)
    assert size.largest_batch == (8500 - 1000) // 10
    assert estimate_of(fixed=10_000, per_image=10, free=10_000).largest_batch == 0
    assert estimate_of(fixed=1, per_image=1, free=None).fits


def estimate_of(**more):
    return Size(parameters=1, backbone_parameters=1, images=100, **more)


def test_a_run_that_may_not_fit_is_warned_of(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("sslctl.profiling.estimate.free_memory", lambda device: 1 << 20)
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps(small_spec(pictures)))
    said = CliRunner().invoke(app, ["pretrain", "--spec", str(spec), "--out", str(tmp_path / "run")])
    assert said.exit_code == 0, said.stderr
    assert "may not fit into memory" in said.stderr


def test_the_command_writes_nothing_and_prints_one_object(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benching, "SQUARE", 64)
    words = ["bench", "--data", str(pictures), "--method", "simclr", "--arch", "resnet10t", "--multi-crop", "2x32"]
    words += ["--batch-size", "8", "--device", "cpu", "--rounds", "1"]
    said = CliRunner().invoke(app, [*words, "--json"])
    assert said.exit_code == 0, said.stderr
    found = json.loads(said.stdout)
    assert found["images"] == 8
    assert found["step"] >= found["encoder"] * 0.5 > 0
    assert found["bottleneck"] in ("loader", "encoder", "objective", "update", "augment")
    assert found["memory_bytes"] > 0
    text = CliRunner().invoke(app, words)
    names = [line.split()[0] for line in text.stdout.splitlines()]
    assert names[:-1] == ["loader", "augment", "step", "device", "memory", "run"]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # compiling takes minutes, on one core beside other work many
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("method", ["simclr", "moco-v2", "dino"])
def test_compiled_backbones_train_alike(pictures, tmp_path, method):
    losses = {}
    for compiled in (False, True, "graphs"):
        t = training(small_spec(pictures, method, run={"compile": compiled}))
        with Run(tmp_path / f"{method}-{compiled}") as run:
            train(t, run, StopAfter(99), silent)
            losses[compiled] = [line["loss"] for line in run.lines()]
            assert load_encoder(run.last).meta.step == 6
    assert losses[True] == losses["graphs"] == pytest.approx(losses[False], rel=1e-4)
    views = noise_views(t, 8)
    EncoderOnly(t, views).step()
    plain, compiled = (watch(training(small_spec(pictures, method, run={"compile": c})), views) for c in (False, True))
    assert [call[1:] for call in plain] == [call[1:] for call in compiled], "compiled networks can be watched too"


@pytest.mark.slow
def test_what_cannot_be_compiled_runs_as_written(pictures, tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps(small_spec(pictures, run={"compile": True, "steps": 2})))
    words = [sys.executable, "-m", "sslctl", "pretrain", "--spec", str(spec), "--out", str(tmp_path / "run"), "--json"]
    env = os.environ | {"CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "InvalidCxxCompiler" in done.stderr, "or it was compiled after all"
    assert json.loads(done.stdout)["steps"] == 2
