"""Two processes under torchrun train one run: they go on with what one began, and it ends as one would end it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from sslctl.engine.loop import train
from sslctl.errors import Stopped
from sslctl.runs.directory import Run

from ..training import StopAfter, picture_folder, silent, small_spec, training

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "sslctl"]


def test_two_processes_go_on_with_a_run_as_one_would(tmp_path):
    pictures = picture_folder(tmp_path / "pictures", 22)
    (pictures / "class0" / "000.jpg").write_bytes(b"no picture")
    # SGD, for AdamW turns the last digits of a small gradient into a step; no depth is dropped, which each process
    # draws by itself; a ResNet, whose batch norm has to see both halves of a batch
    user = small_spec(pictures, "simclr", "sgd", backbone={"drop_path": 0.0}, data={"bad_limit": 1})
    user["optim"]["lr"] = 0.01
    whole = training(user)
    with Run(tmp_path / "whole") as run:
        train(whole, run, StopAfter(99), silent)
        expected = run.lines()
    with Run(tmp_path / "parts") as run, pytest.raises(Stopped):
        run.claim(whole.spec)
        stop = StopAfter(3)
        train(training(user), run, stop, stop.report)
    shutil.rmtree(tmp_path / "parts" / "features", ignore_errors=True)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(user))
    words = ["pretrain", "--spec", str(tmp_path / "spec.yaml"), "--out", str(tmp_path / "parts"), "--json"]
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    env = os.environ | loopback | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*TORCHRUN, *words], env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)  # one object, of the first process
    assert said["steps"] == 6
    lines = Run(tmp_path / "parts").lines()
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in expected], rel=1e-4)
    a, b = (load_file(tmp_path / name / "checkpoints" / "last.safetensors") for name in ("whole", "parts"))
    assert a.keys() == b.keys()
    for name, value in a.items():
        apart, length = (float(x.double().norm()) for x in (b[name] - value, value))
        assert apart <= 2e-3 * length + 1e-6, f"{name}: {apart} of {length}"
    assert len((tmp_path / "parts" / "bad_images.jsonl").read_text().splitlines()) == 1
    assert not list((tmp_path / "parts").rglob("*.part-*"))
