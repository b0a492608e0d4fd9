"""The formulas of the papers, written out, give the features of torchvision's and timm's networks."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from sslctl.exchange.imports import formulas


def images(size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("block", "more"),
    [(BasicBlock, {}), (Bottleneck, {}), (Bottleneck, {"groups": 4, "width_per_group": 8})],
    ids=["basic", "bottleneck", "grouped"],
)
@torch.no_grad()
def test_a_resnet_is_torchvisions(block: type[nn.Module], more: dict[str, int]) -> None:
    torch.manual_seed(0)
    net = torchvision.models.ResNet(block, [2, 1, 1, 1], **more)  # type: ignore[arg-type]
    net.fc = nn.Identity()
    for _ in range(3):
        net(torch.randn(8, 3, 64, 64))  # statistics of its own
    x = images(64)
    torch.testing.assert_close(formulas.resnet(net.state_dict(), x), net.eval()(x), rtol=1e-5, atol=1e-5)


def test_same_padding_is_tensorflows() -> None:
    """With ones for weights a window's sum counts its pixels: at stride 2 and an even side, the last one has fewer."""
    state = {f"bn1.{k}": torch.ones(1) if k in ("weight", "running_var") else torch.zeros(1)
             for k in ("weight", "bias", "running_mean", "running_var")}  # fmt: skip
    state["conv1.weight"] = torch.ones(1, 1, 7, 7)
    x = torch.ones(1, 1, 8, 8)
    # SAME pads 2 before and 3 after: windows see 5, 7, 6 and 4 pixels to a side, and the pooling takes the largest.
    largest = torch.tensor([[7.0, 6.0], [6.0, 6.0]]) * torch.tensor([[7.0, 7.0], [7.0, 6.0]])
    expected = largest.mean() / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(formulas.resnet(state, x, "same")[0, 0], expected)
    assert formulas.resnet(state, x)[0, 0] != formulas.resnet(state, x, "same")[0, 0]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"init_values": 0.3, "qkv_bias": False},
        {"class_token": False, "global_pool": "avg"},
        {"reg_tokens": 2, "no_embed_class": True},
    ],
    ids=["plain", "scaled", "pooled", "registers"],
)
@torch.no_grad()
def test_a_vit_is_timms(more: dict[str, object]) -> None:
    torch.manual_seed(0)
    net = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=0, **more
    ).eval()
    for name, p in net.named_parameters():
        nn.init.normal_(p, 1.0 if name.endswith("norm.weight") else 0.0, 0.2)
    x = images(32)
    torch.testing.assert_close(formulas.vit(net.state_dict(), x, 4), net(x), rtol=1e-4, atol=1e-4)
