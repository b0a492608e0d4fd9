"""What a path is, told without running anything in it: each kind, and what is damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torchvision.models.resnet import BasicBlock

from sslctl.errors import CheckpointError
from sslctl.exchange.exports.target import sha256
from sslctl.exchange.inspection import inspect
from sslctl.runs.directory import Run

OLD = Path(__file__).parents[1] / "golden" / "run_schema1"
STEP = "step-000000006.safetensors"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of one checkpoint and one metric line."""
    with Run(tmp_path / "run") as run:
        shutil.copy(OLD / STEP, run.checkpoints)
        run.start_metrics(0)
        run.log({"step": 6, "loss": 1.5, "health": "learning", "probe_knn": 0.25, "lr": 0.1})
    return tmp_path / "run"


def test_a_checkpoint_says_its_method_backbone_and_tensors() -> None:
    found = inspect(OLD / STEP)
    assert (found["kind"], found["method"], found["step"], found["schema"]) == ("checkpoint", "moco-v2", 6, 1)
    assert found["backbone"]["arch"] == "resnet18" and found["bytes"] == (OLD / STEP).stat().st_size
    assert found["tensors"]["method.queue.keys"] == [[64, 16], "float32"] and found["groups"]["method.queue"] == 2
    assert found["numbers"] == sum(int(np.prod(shape)) for shape, _ in found["tensors"].values())


def test_a_run_says_how_its_last_step_was(run: Path) -> None:
    found = inspect(run)
    assert found["kind"] == "run" and found["checkpoints"] == [STEP] and found["unreadable"] == []
    assert found["health"] == "learning" and found["scores"] == {"probe_knn": 0.25} and found["step"] == 6
    assert found["last_line"]["loss"] == 1.5 and found["last_line"]["epoch"] is None


def test_a_run_whose_checkpoints_are_damaged_is_a_run_all_the_same(run: Path) -> None:
    (run / "checkpoints" / STEP).write_bytes(b"123")
    found = inspect(run)
    assert found["kind"] == "run" and STEP in found["unreadable"][0] and found["health"] == "learning"


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    data = bytearray((OLD / STEP).read_bytes())
    data[-1] ^= 1
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="sha256"):
        inspect(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="no such file"):
        inspect(tmp_path / "nothing")


def test_weights_of_another_tool_are_recognised(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    found = inspect(tmp_path / "net.pth")
    assert (found["kind"], found["layout"]) == ("weights", "torchvision")
    assert found["backbone"]["args"] == {"layers": [1, 1, 1, 1]} and found["image"]["size"] == 224
    assert found["tensors"]["fc.weight"] == [[5, 512], "float32"] and found["left_over"] == {"fc": 2}


def test_tensors_without_a_known_encoder_say_why(tmp_path: Path) -> None:
    torch.save({"a.conv.weight": torch.ones(2)}, tmp_path / "a.pth")
    found = inspect(tmp_path / "a.pth")
    assert found["kind"] == "tensors" and "no known encoder" in found["reason"]
    assert found["tensors"] == {"a.conv.weight": [[2], "float32"]}


def test_features_are_told_from_checkpoints(tmp_path: Path) -> None:
    header = {"sslctl": json.dumps({"key": {"layer": "pooled"}, "skipped": [3]})}
    save_file({"features": torch.ones(2, 3)}, tmp_path / "f.safetensors", header)
    found = inspect(tmp_path / "f.safetensors")
    assert (found["kind"], found["key"], found["skipped"]) == ("features", {"layer": "pooled"}, 1)


def test_images_are_counted(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png", "dog/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    found = inspect(tmp_path)
    assert (found["kind"], found["images"], found["classes"], found["files"]) == ("images", 3, 2, 3)


def report(folder: Path, **files: str) -> dict[str, Any]:
    content = {"format": "onnx", "files": files}
    (folder / "parity.json").write_text(json.dumps(content))
    return content


def test_an_export_is_known_by_its_report_and_changed_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "encoder.onnx").write_bytes(b"a graph")
    content = report(tmp_path, **{"encoder.onnx": sha256(tmp_path / "encoder.onnx")})
    assert inspect(tmp_path) | {"path": "", "bytes": 0, "files": 0} == {
        "kind": "export", "export": content, "changed": [], "path": "", "bytes": 0, "files": 0,
    }  # fmt: skip
    (tmp_path / "encoder.onnx").write_bytes(b"another")
    assert inspect(tmp_path)["changed"] == ["encoder.onnx"]


@pytest.mark.parametrize("content", ["{", "[]", '{"files": []}', '{"files": 3}'])
def test_a_broken_report_is_no_export(content: str, tmp_path: Path) -> None:
    (tmp_path / "parity.json").write_text(content)
    with pytest.raises(CheckpointError, match="not a run, weights or images"):
        inspect(tmp_path)
