"""sslctl import and inspect from the command line: what is said, what is written, what every command then takes."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from sslctl import __version__
from sslctl.errors import CheckpointError
from sslctl.exchange.imports import parity as import_parity
from sslctl.exchange.open_encoder import open_encoder
from sslctl.runs.encoder import load_encoder

from .calling import call, pretrain, result, write_images


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(3)
    made = torchvision.models.ResNet(BasicBlock, [2, 2, 2, 2], num_classes=10)
    made(torch.randn(8, 3, 64, 64))  # statistics of its own
    return made.eval()


@pytest.fixture(scope="module")
def moco(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of MoCo v1 in official nesting."""
    s = net.state_dict()
    held = {f"module.encoder_{k}.{name}": v for k in "qk" for name, v in s.items()} | {"module.queue": torch.ones(4, 8)}
    path = tmp_path_factory.mktemp("moco") / "checkpoint_0199.pth.tar"
    torch.save({"epoch": 200, "arch": "resnet18", "state_dict": held, "optimizer": {"state": {}}}, path)
    return path


@pytest.fixture(scope="module")
def imported(moco: Path) -> dict[str, Any]:
    return result("import", moco, "--out", moco.parent / "moco.safetensors")


def test_an_import_says_what_it_took_and_what_it_left(imported: dict[str, Any], net: nn.Module, moco: Path) -> None:
    assert (imported["layout"], imported["method"]) == ("moco_v1", "moco-v1")
    assert (imported["prefix"], imported["wrappers"]) == ("state_dict.encoder_q.", ["state_dict.module."])
    assert imported["branch"] == "student (online)"
    assert set(imported["left_over"]["state_dict.encoder_k"]) == {f"state_dict.encoder_k.{k}" for k in net.state_dict()}
    assert sorted(imported["left_over"]["state_dict.encoder_q.fc"]) == [
        "state_dict.encoder_q.fc.bias", "state_dict.encoder_q.fc.weight"
    ]  # fmt: skip
    parity = json.loads((moco.parent / "moco.parity.json").read_text())
    assert parity == imported["parity"] | {"checkpoint": "moco.safetensors"}
    assert parity["images"] == 16 and parity["relative"] <= parity["tolerance"] == 1e-5 and parity["cosine"] > 0.99999
    again = call("import", moco, "--out", moco.parent / "moco.safetensors")
    assert again.exit_code == 2 and "already exists" in again.stderr
    loaded = load_encoder(moco.parent / "moco.safetensors")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = nn.Sequential(*list(net.children())[:-1])(x).flatten(1)
        torch.testing.assert_close(loaded.backbone(x).pooled, features, rtol=1e-5, atol=1e-5)


def test_every_command_takes_the_file_as_it_is_and_the_import_alike(
    imported: dict[str, Any], moco: Path, tmp_path: Path
) -> None:
    images = write_images(tmp_path / "flags", ["blue", "green", "red"], 8)
    scores = [result("knn", path, "--data", images, "--k", "3") for path in (moco, imported["out"])]
    assert scores[0]["top1"] == scores[1]["top1"]
    assert [score["checkpoint"]["method"] for score in scores] == ["moco-v1", "moco-v1"]
    for words in (imported["out"], "timm:resnet18"):
        done = call("import", words, "--out", tmp_path / "x.safetensors")
        assert done.exit_code == 2 and "nothing to import" in done.stderr
    bare = call("knn", moco, "--k", "3")
    assert bare.exit_code == 2 and "give --data" in bare.stderr


def test_an_imported_encoder_is_no_run_to_go_on_with(imported: dict[str, Any], tmp_path: Path) -> None:
    run = pretrain(write_images(tmp_path / "flags", ["blue", "red"], 10), tmp_path / "run", "simclr", "resnet18")
    for old in (run / "checkpoints").glob("*"):
        old.unlink()
    shutil.copyfile(imported["out"], run / "checkpoints" / "last.safetensors")
    done = call("pretrain", "--spec", run / "spec.yaml", "--resume", f"--out={run}")
    assert done.exit_code == 4 and "an imported encoder: no run that could go on" in done.stderr


def test_features_that_differ_are_an_error_and_leave_nothing(
    moco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = import_parity.formulas.resnet
    monkeypatch.setattr(import_parity.formulas, "resnet", lambda *words: right(*words) * 1.001)
    done = call("import", moco, "--out", tmp_path / "x.safetensors")
    assert done.exit_code == 4 and "and sslctl give different features" in done.stderr
    assert not list(tmp_path.iterdir())


def in_this_process(code: str, inputs: dict[str, Tensor], place: Path, what: str, who: str) -> dict[str, Tensor]:
    """What ``run_fresh`` does, without the seconds that a new process takes to import torch."""
    save_file(inputs, place / "x.safetensors")
    words, path = sys.argv, Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "argv", ["", "x.safetensors", "y.safetensors"])
        exec(code, {})
    assert sys.argv is words and Path.cwd() == path
    return load_file(place / "y.safetensors")


def test_torchvision_judges_its_own_weights_in_a_process_of_its_own(net: nn.Module, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "resnet18.pth")
    found = result("import", tmp_path / "resnet18.pth", "--out", tmp_path / "x.safetensors")
    assert found["parity"]["against"] == f"torchvision {torchvision.__version__.partition('+')[0]}" or (
        found["parity"]["against"] == f"torchvision {torchvision.__version__}"
    )
    assert found["layout"] == "torchvision"


def hf_folder(kind: str, folder: Path) -> None:
    import transformers

    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    if kind == "ResNet":
        config = transformers.ResNetConfig(embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[1, 1, 1, 1],
                                           layer_type="basic")  # fmt: skip
    else:
        config = getattr(transformers, f"{kind}Config")(**sizes)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2], "size": {"height": 32, "width": 32}})
    )


@pytest.mark.parametrize("kind", ["ViT", "Dinov2", "Dinov2WithRegisters", "ResNet"])
def test_transformers_judges_folders_of_hugging_face(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_parity, "run_fresh", in_this_process)
    hf_folder(kind, tmp_path / "folder")
    found = result("import", tmp_path / "folder", "--out", tmp_path / "x.safetensors")
    assert found["layout"] == "hf" and found["parity"]["against"].startswith("transformers ")
    assert found["image"] == {"size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}
    direct = open_encoder(tmp_path / "folder" / "model.safetensors")  # the file in the folder is the folder
    assert direct.meta.sha256 == found["sha256"]
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    (tmp_path / "folder" / "config.json").write_text(json.dumps(config | {"model_type": "swin"}))
    with pytest.raises(CheckpointError, match="a model of type swin"):
        open_encoder(tmp_path / "folder")


@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224", "convnext_atto"])
def test_timm_judges_its_own_folders(arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_parity, "run_fresh", in_this_process)
    args = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4} if arch.startswith("vit") else {}
    torch.manual_seed(2)
    size = {"img_size": 32} if args else {}
    net = timm.create_model(arch, num_classes=5, **args, **size)
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file(net.state_dict(), folder / "model.safetensors")
    cfg = {"input_size": [3, 32, 32], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "num_classes": 5}
    told = {"architecture": arch, "num_classes": 5, "model_args": args | size, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(told))
    found = result("import", folder, "--out", tmp_path / "x.safetensors")
    assert found["layout"] == "timm_folder" and found["parity"]["against"] == f"timm {timm.__version__}"
    assert found["image"] == {"size": 32, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    assert found["backbone"]["arch"] == arch


def test_inspect_knows_runs_checkpoints_weights_and_images(
    imported: dict[str, Any], moco: Path, tmp_path: Path
) -> None:
    images = write_images(tmp_path / "flags", ["blue", "red"], 10)
    run = pretrain(images, tmp_path / "run", "simclr", "resnet18", channels=[4, 8, 8, 8], layers=[1, 1, 1, 1])
    told = result("inspect", run)
    assert (told["kind"], told["method"], told["step"]) == ("run", "simclr", 2)
    assert told["spec"]["data"]["path"] == str(images) and told["data"]["images"] > 0
    assert told["checkpoints"][0] == "last.safetensors" and told["last_line"]["step"] == 2 and told["health"]
    file = result("inspect", run / "checkpoints" / "last.safetensors")
    assert file["kind"] == "checkpoint" and file["sha256"] == told["sha256"]
    assert file["tensors"]["method.student.backbone.net.conv1.weight"] == [[64, 3, 3, 3], "float32"]
    foreign = result("inspect", moco)
    assert (foreign["kind"], foreign["layout"], foreign["backbone"]["arch"]) == ("weights", "moco_v1", "resnet18")
    assert foreign["tensors"]["state_dict.queue"] == [[4, 8], "float32"]
    own = result("inspect", imported["out"])
    assert own["imported"]["title"] == "MoCo v1" and own["sha256"] == foreign["sha256"] == imported["sha256"]
    pictures = result("inspect", images)
    known = {"schema": 1, "sslctl": __version__, "bytes": pictures["bytes"], "path": str(images), "files": 20}
    assert pictures == known | {"kind": "images", "images": 20, "classes": 2}
    torch.save({"linear.weight": torch.ones(3, 4)}, tmp_path / "linear.pth")
    head = result("inspect", tmp_path / "linear.pth")
    assert head["kind"] == "tensors" and "only a linear classifier" in head["reason"]
    text = call("inspect", moco)
    assert "what        MoCo v1 (moco_v1)" in text.stdout and "state_dict.encoder_k (122)" in text.stdout


def test_inspect_reads_the_report_of_an_export_and_sees_what_was_changed(tmp_path: Path) -> None:
    model = tmp_path / "encoder.onnx"
    model.write_bytes(b"an ONNX graph")
    report = {"format": "onnx", "files": {model.name: hashlib.sha256(b"an ONNX graph").hexdigest()}}
    (tmp_path / "encoder.parity.json").write_text(json.dumps(report))
    found = result("inspect", model)
    assert (found["kind"], found["export"], found["changed"]) == ("export", report, [])
    model.write_bytes(b"another graph")
    assert result("inspect", model)["changed"] == [model.name]
    (tmp_path / "other.onnx").write_bytes(b"an ONNX graph")
    assert call("inspect", tmp_path / "other.onnx").exit_code == 4


def test_inspect_refuses_what_is_damaged_or_nothing(imported: dict[str, Any], tmp_path: Path) -> None:
    whole = bytearray(Path(imported["out"]).read_bytes())
    whole[-3] ^= 1
    (tmp_path / "x.safetensors").write_bytes(whole)
    (tmp_path / "text.txt").write_text("nothing\n")
    for name, said in (("x.safetensors", "sha256"), ("text.txt", "neither safetensors"), ("none", "no such file")):
        done = call("inspect", tmp_path / name, "--json")
        assert done.exit_code == 4 and said in json.loads(done.stdout)["error"]["message"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert call("inspect", empty).exit_code == 4
