"""torchvision's own classes take the weights, strictly, and give our features."""

from __future__ import annotations

import re

import pytest
import torch
import torchvision
from torch import nn

from sslctl.errors import SpecError
from sslctl.exchange.exports.torchvision_file import resnet_code, resnet_state, vit_state

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
    with pytest.raises(SpecError, match="none of these: layer scale, registers"):
        vit_state(encoder("registers", 32).backbone, 32)
    ours = encoder("resnet", 64)
    with pytest.raises(SpecError, match=r"layer1\.0\.conv1\.weight is \(4, 64, 3, 3\) here, \(64, 64, 3, 3\) there"):
        resnet_code(ours.backbone, ours.arch)
