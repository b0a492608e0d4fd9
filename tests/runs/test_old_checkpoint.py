"""A checkpoint of schema 1, written by version 0.1.0 before the code was rearranged: it resumes, evaluates, inspects.

``golden/run_schema1`` holds its spec, the checkpoint of step 6 and that of step 12 (of 12), by:
sslctl pretrain --data demo --method moco-v2 --recipe small --arch resnet18 --set "backbone.args.channels=[4,8,8,8]"
--set method.queue=64 --set method.norm_groups=2 --set method.momentum=0.9 --set method.out=16 --batch-size 32 --seed 3
--workers 0 --precision fp32 --set run.threads=1 --checkpoint-every 6 --steps 12
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from sslctl.runs.checkpoint import read
from sslctl.runs.encoder import load_encoder

from ..cli.calling import call, result

OLD = Path(__file__).parents[1] / "golden" / "run_schema1"
MIDDLE, END = "step-000000006.safetensors", "step-000000012.safetensors"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The run as it stood after step 6."""
    folder = tmp_path / "old"
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(OLD / "spec.yaml", folder)
    shutil.copy(OLD / MIDDLE, folder / "checkpoints")
    return folder


def test_it_resumes_to_the_same_numbers(run: Path) -> None:
    done = result("pretrain", "--spec", run / "spec.yaml", "--out", run, "--resume")
    assert done["steps"] == 12
    meta, tensors = read(Path(done["checkpoint"]))
    then, expected = read(OLD / END)
    assert meta.step == then.step == 12 and tensors.keys() == expected.keys()
    assert meta.data == then.data and meta.image == then.image and meta.encoder == then.encoder
    for name, value in expected.items():  # the same bits on one machine; another sums in another order
        torch.testing.assert_close(tensors[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_its_encoder_evaluates(run: Path) -> None:
    encoder = load_encoder(OLD / MIDDLE)
    assert encoder.backbone.dim == 8 and encoder.spec.method.name == "moco-v2" and encoder.meta.step == 6
    assert result("knn", run, "--device", "cpu")["checkpoint"]["step"] == 6


def test_it_says_what_it_is() -> None:
    found = result("inspect", OLD / END)
    assert (found["kind"], found["method"], found["step"], found["schema"]) == ("checkpoint", "moco-v2", 12, 1)


def test_another_type_in_its_header_is_refused(run: Path) -> None:
    file = run / "checkpoints" / MIDDLE
    content = file.read_bytes()
    assert content.count(b'\\"step\\": 6') == 1
    file.write_bytes(content.replace(b'\\"step\\": 6', b'\\"step\\":[]'))
    answer = call("knn", file, "--data", "demo")
    assert answer.exit_code == 4 and "step" in answer.stderr
