"""The examples do what they say: the demo's spec and script, and the gate for pipelines with its exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslctl.errors import Exit
from sslctl.methods.resolve import resolve
from sslctl.spec.crops import parse_crops
from sslctl.spec.parsing import read_spec_file

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pictures of noise in two folders: real files with nothing to learn, so that no gate of 1.0 is passed."""
    root = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 20, 24, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        folder = root / f"class{i % 2}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    return root


@pytest.fixture
def small(photos: Path, tmp_path: Path) -> list[str]:
    """Options that make a run of any example last a second."""
    words = f"--data {photos} --out {tmp_path / 'run'} --steps 2 --batch-size 8 --multi-crop 2x16+2x12 --workers 0"
    return [*words.split(), "--set", "backbone.args.channels=[4, 4, 8, 8]", "--set", "data.val_fraction=0.5"]


def run(script: str, *words: str, tools: Path, without_jq: bool = False) -> subprocess.CompletedProcess[str]:
    """The script as a person calls it, with ``sslctl`` on the PATH being this tree's."""
    tools.mkdir(exist_ok=True)
    shim = tools / "sslctl"
    shim.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m sslctl "$@"\n')
    shim.chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    if without_jq:
        for name in ("bash", "python3", "sh", "env", "dirname"):
            found = sys.executable if name == "python3" else shutil.which(name)
            if found and not (tools / name).exists():
                (tools / name).symlink_to(found)
        path = str(tools)
    return subprocess.run(
        [str(EXAMPLES / script), *words],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_the_demo_is_swav_with_multi_crop_on_the_embedded_set() -> None:
    spec = resolve(read_spec_file(EXAMPLES / "demo.yaml"))
    assert (spec.data.path, spec.method.name) == ("demo", "swav")
    assert parse_crops(spec.views.multi_crop or "").locals is not None


def test_the_demo_prints_its_score_its_baselines_and_where_the_run_is(small: list[str], tmp_path: Path) -> None:
    done = run("demo.sh", *small, tools=tmp_path / "bin")
    assert done.returncode == 0, done.stderr
    assert "raw pixels: top-1" in done.stdout
    assert "random weights: top-1" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last == f"run directory: {tmp_path / 'run'}"
    assert (tmp_path / "run" / "spec.yaml").is_file()


def test_the_gate_lets_pass_and_stops(small: list[str], tmp_path: Path) -> None:
    demo = str(EXAMPLES / "demo.yaml")
    passed = run("ci-gate.sh", demo, "0", *small, tools=tmp_path / "bin")
    assert passed.returncode == 0, passed.stderr
    score = json.loads(passed.stdout)
    assert 0 <= score["top1"] < 1
    assert score["n_test"] == 24

    stopped = run("ci-gate.sh", demo, "1", *small, tools=tmp_path / "bare", without_jq=True)
    assert stopped.returncode == Exit.GATE, stopped.stderr
    assert json.loads(stopped.stdout)["top1"] == score["top1"], "the finished run was taken up, not trained again"


def test_the_gate_hands_on_what_went_wrong_before_it(small: list[str], tmp_path: Path) -> None:
    demo = str(EXAMPLES / "demo.yaml")
    spec = run("ci-gate.sh", demo, "0", *small, "--set", "optim.lrr=1", tools=tmp_path / "bin")
    assert (spec.returncode, spec.stdout) == (Exit.USAGE, "")
    assert "optim.lrr: no such key — did you mean 'lr'?" in spec.stderr
    data = run("ci-gate.sh", demo, "0", *small, "--data", str(tmp_path / "nothing"), tools=tmp_path / "bin")
    assert (data.returncode, data.stdout) == (Exit.DATA, "")
    none = run("ci-gate.sh", tools=tmp_path / "bin")
    assert none.returncode != 0
    assert "usage: ci-gate.sh" in none.stderr
