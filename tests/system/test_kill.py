"""Real processes, really killed: a run survives SIGKILL, SIGTERM and Ctrl-C at any moment and ends in the same bits."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from sslctl.errors import Exit
from sslctl.runs import checkpoint

from ..training import small_spec

STEPS = 150


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> Path:
    """A run of a few seconds that checkpoints after every step, over pixels that fit in memory."""
    folder = tmp_path_factory.mktemp("kill")
    rng = np.random.default_rng(0)
    np.savez(folder / "pack.npz", images=rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8))
    run = {"steps": STEPS, "checkpoint_every": 1, "log_every": 5, "threads": 1}
    user = small_spec(folder / "pack.npz", "swav", "larc", run=run)
    (folder / "spec.yaml").write_text(yaml.safe_dump(user))
    return folder / "spec.yaml"


def start(spec: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sslctl", "pretrain", "--spec", str(spec), "--out", str(out), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def until(condition, process: subprocess.Popen[str]) -> None:
    """Wait for ``condition``, or for the process to end."""
    end = time.monotonic() + 120
    while not condition() and process.poll() is None:
        assert time.monotonic() < end, "the run did not get there in two minutes"
        time.sleep(0.005)


def digest(out: Path) -> str:
    return str(checkpoint.read_meta(out / "checkpoints" / "last.safetensors").sha256)


def newest_step(out: Path) -> int:
    steps = [int(p.stem.partition("-")[2]) for p in (out / "checkpoints").glob("step-*.safetensors")]
    return max(steps, default=0)


@pytest.fixture(scope="module")
def whole(spec, tmp_path_factory) -> Path:
    """A run that nobody disturbs, at its end."""
    out = tmp_path_factory.mktemp("whole") / "run"
    code, printed, err = finish(start(spec, out))
    assert code == 0, err
    assert json.loads(printed)["steps"] == STEPS
    return out


@pytest.fixture(scope="module")
def expected(whole) -> str:
    """The state at the end of that run."""
    return digest(whole)


@pytest.mark.timeout(900)  # so many processes, each of which imports torch
@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_kills_at_random_moments_change_no_bit(kills, spec, expected, tmp_path):
    out, rng = tmp_path / "run", random.Random(0)
    for kill in range(kills):
        process = start(spec, out)
        before = newest_step(out)
        aim = before + rng.randrange(1, STEPS // (kills + 1))
        until(lambda aim=aim: newest_step(out) >= aim, process)
        time.sleep(rng.random() * 0.05)  # anywhere within a step or a checkpoint's writing
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL, f"kill {kill} came after the end: the test proves nothing"
    code, printed, err = finish(start(spec, out))
    assert code == 0, err
    assert json.loads(printed)["steps"] == STEPS
    assert digest(out) == expected
    assert not list((out / "checkpoints").glob(".*.part-*"))
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(5, STEPS + 1, 5))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, Exit.STOPPED), (signal.SIGINT, Exit.INTERRUPTED)])
def test_a_stop_saves_and_says_how_to_go_on(number, code, spec, expected, tmp_path):
    out = tmp_path / "run"
    process = start(spec, out)
    until(lambda: newest_step(out) >= 20, process)
    process.send_signal(number)
    returned, printed, err = finish(process)
    assert returned == code
    assert "Traceback" not in err
    stopped = json.loads(printed)["error"]
    assert stopped["code"] == code
    assert f"stopped at step {newest_step(out)} of {STEPS}" in stopped["message"]
    assert finish(start(spec, out))[0] == 0
    assert digest(out) == expected


def test_a_finished_run_says_so_and_does_nothing(spec, whole):
    last = whole / "checkpoints" / "last.safetensors"
    before = last.stat().st_mtime_ns
    code, printed, _ = finish(start(spec, whole))
    assert code == 0
    assert json.loads(printed)["steps"] == STEPS
    assert last.stat().st_mtime_ns == before
