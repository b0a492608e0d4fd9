"""What a backbone is in the words of other libraries: its shape, and everything that is not plain about it."""

from __future__ import annotations

import pytest
import torch

from sslctl.backbones.architecture import pooling, resnet_shape, small_stem_shape, vit_positions, vit_shape
from sslctl.errors import SpecError

from .nets import resnet, vit


def test_a_resnet_has_its_stages_and_stem() -> None:
    shape = resnet_shape(resnet(64), "who")
    assert (shape.bottleneck, shape.depths, shape.widths, shape.stem, shape.small) == (
        False,
        [1] * 4,
        [4, 4, 8, 8],
        64,
        False,
    )
    assert resnet_shape(resnet(32), "who").small and small_stem_shape(resnet(32)) == (64, 1)
    assert small_stem_shape(resnet(32, padding="solo")) == (64, 2)
    with pytest.raises(SpecError, match="who takes ResNets, not a VisionTransformer"):
        resnet_shape(vit(), "who")
    with pytest.raises(SpecError, match="who has no ResNet like this one"):
        resnet_shape(resnet(64, padding="same"), "who")


@pytest.mark.parametrize(
    ("arch", "args", "special"),
    [
        ("vit_tiny_patch16_224", {}, set()),
        ("vit_tiny_patch16_224", {"qkv_bias": False, "qk_norm": True}, {"no bias in qkv", "query-key norm"}),
        ("vit_small_patch14_reg4_dinov2", {}, {"registers", "layer scale"}),
        ("vit_giant_patch14_dinov2", {"embed_dim": 24}, {"layer scale", "SwiGLU"}),
        ("vit_base_patch16_gap_224", {}, {"no class token", "another pooling"}),
        (
            "vit_small_patch16_dinov3",
            {},
            {"registers", "layer scale", "no bias in qkv", "EVA's blocks", "rotary positions"},
        ),
    ],
)
def test_what_is_special_about_a_vit(arch: str, args: dict[str, object], special: set[str]) -> None:
    shape = vit_shape(vit(arch=arch, args=args), 32)
    assert shape.special == special
    assert (shape.size, shape.patch, shape.dim, shape.depth, shape.heads) == (32, 8, args.get("embed_dim", 16), 2, 2)
    assert shape.registers == (4 if "registers" in special else 0)


def test_positions_are_those_that_the_encoder_adds_at_that_size() -> None:
    net = vit(args={"reg_tokens": 2})
    table, registers = vit_positions(net, 48)
    seen: list[torch.Tensor] = []
    net.net.norm_pre.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with torch.no_grad():
        net.net.patch_embed.proj.weight.zero_()
        net.net.patch_embed.proj.bias.zero_()
        net(torch.zeros(1, 3, 48, 48))
    assert registers is not None
    torch.testing.assert_close(seen[0][:, 1:3], registers)
    torch.testing.assert_close(seen[0][:, 3:], table[:, 1:])
    torch.testing.assert_close(seen[0][:, :1], net.net.cls_token + table[:, :1])


def test_pooling_in_timms_words() -> None:
    assert pooling(vit()) == {"global_pool": "token", "fc_norm": False}
    assert pooling(vit(arch="eva02_tiny_patch14_224")) == {"global_pool": "avg", "use_fc_norm": True}
