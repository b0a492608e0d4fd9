"""An import gets its name only when its features are those of the library, or the formulas, of the weights."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

from sslctl.errors import CheckpointError, SpecError
from sslctl.exchange.imports.parity import check, reference_features, write_import
from sslctl.exchange.imports.recognise import ImportOptions, import_file
from sslctl.runs.encoder import load_encoder

from .files import saved


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """A ResNet with one block a stage in the nesting of MoCo v2: of no library that could be asked."""
    torch.manual_seed(0)
    net = torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1])
    net(torch.randn(4, 3, 64, 64))
    state = {f"module.encoder_q.{k}": v for k, v in net.state_dict().items() if not k.startswith("fc.")}
    return saved({"state_dict": state | {"module.encoder_q.fc.2.weight": torch.ones(8, 512)}}, tmp_path / "moco.pth")


def test_an_import_is_compared_and_written_with_its_report(narrow: Path, tmp_path: Path) -> None:
    encoder, extracted = import_file(narrow)
    out = tmp_path / "moco.safetensors"
    out.write_bytes(b"of an earlier import")
    report = write_import(encoder, extracted, out, force=True)
    assert report["against"] == "the papers' formulas on the file's own tensors"
    assert report["images"] >= 2 and report["size"] == 224 and report["tolerance"] == 1e-5
    assert report | {"checkpoint": out.name} == json.loads((tmp_path / "moco.parity.json").read_text())
    again = load_encoder(out)
    assert again.meta.sha256 == encoder.meta.sha256 and again.meta.imported == encoder.meta.imported
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(again.backbone(x).pooled, encoder.backbone(x).pooled)


def test_features_that_differ_are_refused_and_nothing_is_left(narrow: Path, tmp_path: Path) -> None:
    encoder, extracted = import_file(narrow)
    with torch.no_grad():
        encoder.backbone.net.layer4[0].bn2.bias.add_(0.01)
    with pytest.raises(CheckpointError, match=r"moco\.pth"):
        write_import(encoder, extracted, tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["moco.pth"]


def test_an_existing_file_and_another_suffix_are_refused(narrow: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"mine")
    encoder, extracted = import_file(narrow)
    with pytest.raises(SpecError, match=r"out\.safetensors") as refused:
        write_import(encoder, extracted, out)
    assert "--force" in refused.value.hint and out.read_bytes() == b"mine"
    with pytest.raises(SpecError, match=r"\.safetensors"):
        write_import(encoder, extracted, tmp_path / "out.pth")


def test_a_network_of_timm_alone_is_compared_with_a_plain_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = timm.create_model("convnext_atto", num_classes=0)
    encoder, extracted = import_file(saved(net.state_dict(), tmp_path / "a.pth"), ImportOptions(arch="convnext_atto"))
    x = torch.randn(2, 3, 64, 64)
    name, features = reference_features(encoder, extracted, tmp_path / "a.pth", x)
    assert name == f"timm {timm.__version__}, a plain convnext_atto"
    with torch.no_grad():
        torch.testing.assert_close(features, net.eval()(x))


def test_torchvision_is_asked_in_a_process_of_its_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=3)
    encoder, extracted = import_file(saved(net.state_dict(), tmp_path / "resnet.pth"))
    report = check(encoder, extracted, tmp_path / "resnet.pth")
    assert report["against"] == f"torchvision {version('torchvision')}"
    assert report["images"] == 16 and 0 <= report["relative"] <= 1e-5
    x = torch.randn(1, 3, 64, 64)
    _, features = reference_features(encoder, extracted, tmp_path / "resnet.pth", x)
    net.fc = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(features, net.eval()(x), rtol=1e-5, atol=1e-6)
