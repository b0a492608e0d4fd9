"""Where the time of a run goes, measured part by part, and what is said of it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from sslctl.cli.main import app
from sslctl.profiling import breakdown as benching
from sslctl.profiling.breakdown import Bench, bench

from ..training import picture_folder, small_spec, training

GOOD = Bench(
    images=100, decode=0.1, crop=0.1, augment=0.01, step=1.0, encoder=0.96, update=0.02, ratio=1.04, workers=1,
    flops=1e9, peak_flops=2e9, memory=1 << 30, precision="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return picture_folder(tmp_path_factory.mktemp("pictures"))


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
