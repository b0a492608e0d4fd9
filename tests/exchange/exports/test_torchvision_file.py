"""torchvision's own classes load the weights, strictly, and give our features; a .pth file holds plain tensors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from sslctl.errors import SpecError
from sslctl.exchange.exports.torchvision_file import resnet_code, resnet_state, vit_state, write_pth

from .encoders import encoder


@pytest.mark.parametrize(
    ("kind", "size", "call"),
    [
        ("resnet18", 64, r"models\.resnet18\(weights=None\)"),
        ("resnet10", 64, r"models\.resnet\.ResNet\(models\.resnet\.BasicBlock, \[1, 1, 1, 1\]\)"),
        ("resnet10", 32, "nn.Conv2d"),
    ],
)
@torch.no_grad()
def test_the_line_that_builds_a_resnet_takes_its_weights(kind: str, size: int, call: str) -> None:
    ours = encoder(kind, size)
    code = resnet_code(ours.backbone, ours.arch)
    assert re.search(call, code)
    names = {"models": torchvision.models, "nn": nn}
    exec(code, names)
    net: nn.Module = names["net"]
    net.load_state_dict(resnet_state(ours.backbone))
    x = torch.randn(2, 3, size, size)
    torch.testing.assert_close(net.eval()(x), ours.backbone(x).pooled, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["vit", "dino"])
@torch.no_grad()
def test_a_vit_takes_its_weights_and_positions_at_the_size_of_the_images(kind: str) -> None:
    ours = encoder(kind, 32)
    net = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 64)
    net.heads = nn.Identity()
    net.load_state_dict(vit_state(ours.backbone, 32))
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(net.eval()(x), ours.backbone(x).pooled, rtol=1e-4, atol=1e-5)


def test_networks_that_its_classes_cannot_be_are_refused_by_what_they_have() -> None:
    with pytest.raises(SpecError, match="no layer scale, registers"):
        vit_state(encoder("registers", 32).backbone, 32)
    ours = encoder("resnet", 64)
    with pytest.raises(SpecError, match=r"layer1\.0\.conv1\.weight is \(4, 64, 3, 3\) here, \(64, 64, 3, 3\) there"):
        resnet_code(ours.backbone, ours.arch)


def test_tensors_come_back_by_the_safe_reader(tmp_path: Path) -> None:
    state = {"a": nn.Parameter(torch.arange(3.0)), "b": torch.arange(1_000_000.0)[:2]}
    write_pth(tmp_path / "plain.pth", state)
    content = torch.load(tmp_path / "plain.pth", weights_only=True)
    assert (
        content.keys() == {"a", "b"} and torch.equal(content["a"], state["a"]) and torch.equal(content["b"], state["b"])
    )
    assert type(content["a"]) is torch.Tensor and not content["a"].requires_grad
    assert (tmp_path / "plain.pth").stat().st_size < 10_000, "not the whole storage that b is a part of"


def test_extra_values_put_the_tensors_under_model(tmp_path: Path) -> None:
    write_pth(tmp_path / "more.pth", {"a": torch.ones(1)}, author="sslctl", flag=True)
    content = torch.load(tmp_path / "more.pth", weights_only=True)
    assert content == {"model": {"a": torch.ones(1)}, "author": "sslctl", "flag": True}
