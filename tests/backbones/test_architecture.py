"""What kind of network an encoder is, in the words of other libraries: read from real ones, nothing left unsaid."""

from __future__ import annotations

import pytest
import torch

from sslctl.backbones.architecture import ResNetShape, resnet_shape, vit_positions, vit_shape
from sslctl.errors import SpecError

from ..exchange.exports.encoders import encoder


def test_a_resnet_is_described_by_its_stages() -> None:
    expected = ResNetShape(False, 64, [1, 1, 1, 1], [4, 4, 8, 8], inner=4, groups=1, small=False)
    assert resnet_shape(encoder("resnet", 64).backbone, "x") == expected
    assert resnet_shape(encoder("resnet", 32).backbone, "x").small
    wide = encoder("resnet", 64, arch="resnext50_32x4d", args={"layers": [1, 1, 1, 1]})
    shape = resnet_shape(wide.backbone, "x")
    assert shape.bottleneck and (shape.inner, shape.groups, shape.widths) == (128, 32, [256, 512, 1024, 2048])


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_other_networks_are_named(kind: str) -> None:
    with pytest.raises(SpecError, match="some library takes ResNets, not a "):
        resnet_shape(encoder(kind, 32).backbone, "some library")


def test_paddings_and_attention_that_no_other_library_has_are_refused() -> None:
    for backbone in (encoder("same", 64), encoder("resnet", 64, args={"block_args": {"attn_layer": "se"}})):
        with pytest.raises(SpecError, match="has no ResNet like this one"):
            resnet_shape(backbone.backbone, "x")


@pytest.mark.parametrize(
    ("kind", "special"),
    [
        ("vit", set()),
        ("dino", set()),
        ("dinov2", {"layer scale"}),
        ("registers", {"layer scale", "registers"}),
        ("giant", {"layer scale", "SwiGLU"}),
        ("averaged", {"no class token", "another pooling"}),
    ],
)
def test_a_vit_is_described_with_all_that_is_special(kind: str, special: set[str]) -> None:
    shape = vit_shape(encoder(kind, 32).backbone, 32)
    assert shape.special == special
    assert (shape.size, shape.patch, shape.depth, shape.heads) == (32, 8, 2, 2)
    assert shape.registers == (4 if "registers" in special else 0)


def test_hidden_width_of_swiglu_is_that_of_one_half() -> None:
    ours = encoder("giant", 32).backbone
    assert vit_shape(ours, 32).hidden == ours.net.blocks[0].mlp.fc2.in_features


@pytest.mark.parametrize("kind", ["vit", "dino", "dinov2", "registers"])
@torch.no_grad()
def test_positions_at_a_size_are_what_the_encoder_adds_there(kind: str) -> None:
    """With patches of zeros, what enters the first block is [CLS], registers and positions alone."""
    backbone = encoder(kind, 32).backbone
    net = backbone.net
    table, registers = vit_positions(backbone, 32)
    net.patch_embed.proj.weight.zero_()
    net.patch_embed.proj.bias.zero_()
    entered: list[torch.Tensor] = []
    net.blocks[0].register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    backbone(torch.zeros(1, 3, 32, 32))
    expected = torch.cat([net.cls_token + table[:, :1], *([] if registers is None else [registers]), table[:, 1:]], 1)
    torch.testing.assert_close(entered[0], expected, rtol=1e-6, atol=1e-6)
