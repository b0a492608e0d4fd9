"""Outputs of an encoder by name: each what another way of computing it gives; names that a net lacks are refused."""

from __future__ import annotations

import pytest
import torch

from sslctl.backbones import Backbone, build_backbone
from sslctl.errors import SpecError
from sslctl.exchange.exports.graph import OUTPUTS, check_outputs, outputs
from sslctl.spec.schema import BackboneSpec


def build(arch: str, size: int, **args: object) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(BackboneSpec(arch=arch, args=args), size).eval()


def test_a_vit_gives_its_tokens_apart() -> None:
    vit = build("vit_small_patch14_reg4_dinov2", 32, patch_size=8, embed_dim=16, depth=2, num_heads=2)
    assert check_outputs(vit, "all") == OUTPUTS
    x = torch.randn(2, 3, 32, 48)
    with torch.inference_mode():
        found, tokens = outputs(vit, x, OUTPUTS), vit.net.forward_features(x)
        torch.testing.assert_close(found["pooled"], vit(x).pooled, rtol=0, atol=0)
        torch.testing.assert_close(found["cls"], tokens[:, 0], rtol=0, atol=0)
        for row, column in [(0, 0), (1, 2), (3, 5)]:
            patch = tokens[:, 5 + 6 * row + column]  # after [CLS] and four registers
            torch.testing.assert_close(found["patches"][:, :, row, column], patch, rtol=0, atol=0)
        assert outputs(vit, x, ("cls",)).keys() == {"cls"}


def test_a_resnet_has_no_class_token_and_pools_its_map() -> None:
    net = build("resnet18", 64, channels=[4, 4, 8, 8], layers=[1, 1, 1, 1])
    assert check_outputs(net, "all") == ("pooled", "patches")
    x = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        found = outputs(net, x, ("pooled", "patches"))
        assert found["patches"].shape == (2, 8, 2, 3)
        torch.testing.assert_close(found["patches"].mean((2, 3)), net.net(x))
        torch.testing.assert_close(found["pooled"], net.net(x), rtol=0, atol=0)
        torch.testing.assert_close(net.net.forward_features(x), found["patches"], rtol=0, atol=0)
    for wanted, reason in [("cls", "no class token"), ("tokens", "no such output")]:
        with pytest.raises(SpecError, match=reason) as e:
            check_outputs(net, wanted)
        assert "pooled, patches, all" in e.value.hint
