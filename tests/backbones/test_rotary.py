"""ViTs with rotary positions: timm's own features and attention, any size, masks and kept patches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sslctl.backbones import Backbone, attention, hollow_backbone, rollout, without_drop_path
from sslctl.errors import SpecError
from sslctl.spec.schema import BackboneSpec

from .nets import TINY_VIT, vit

NETS = {
    "dinov3": ("vit_small_patch16_dinov3", {}),
    "dinov3, key bias": ("vit_small_patch16_dinov3", {"attn_type": "rope", "qkv_bias": True}),
    "eva": ("eva_giant_patch14_224", {}),
    "eva02": ("eva02_tiny_patch14_224", {}),
    "mixed": ("vit_small_patch16_rope_mixed_224", {}),
    "averaged": ("vit_medium_patch16_rope_reg1_gap_256", {}),
    "shared keys": ("vit_small_patch16_dinov3", {"attn_type": "rope", "qkv_fused": False, "num_kv_heads": 1}),
}
every_net = pytest.mark.parametrize("name", NETS)


def build(name: str, **more: object) -> Backbone:
    torch.manual_seed(0)
    arch, args = NETS[name]
    net = vit(arch=arch, args=args, **more).eval().requires_grad_(False)
    for block in net.net.blocks:
        for key, p in block.attn.named_parameters():
            if key in ("qkv.weight", "q_proj.weight", "k_proj.weight"):
                p *= 10  # fresh weights look everywhere alike
    return net


def matrices(net: Backbone, x: Tensor) -> list[Tensor]:
    """The whole attention matrices of all blocks, (B, heads, N, N), as timm's own unfused code computes them."""
    found: list[Tensor] = []
    for block in net.net.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, __, out: found.append(out))
    net.net(x)
    return found


@every_net
def test_features_are_timms_at_any_size(name: str) -> None:
    net = build(name)
    for x in (torch.randn(2, 3, 32, 32), torch.randn(2, 3, 24, 48)):
        found = net(x, blocks=2)
        assert torch.equal(found.pooled, net.net(x))
        assert torch.equal(torch.cat([found.prefix, found.patches], 1), net.net.forward_features(x))
        assert found.grid == (x.shape[2] // 8, x.shape[3] // 8)
        assert torch.equal(found.blocks[-1][:, net.prefix_tokens :], found.patches)


@every_net
def test_attention_is_a_row_of_the_whole_matrix(name: str) -> None:
    net, x = build(name), torch.randn(2, 3, 88, 104)  # more tokens than are looked from at a time
    maps, rolled, full, prefix = attention(net, x), rollout(net, x), matrices(net, x), net.prefix_tokens
    last = full[-1][:, :, 0, prefix:] if net.pools_class_token else full[-1][:, :, prefix:, prefix:].mean(2)
    torch.testing.assert_close(maps, last.reshape(2, 2, 11, 13), rtol=1e-4, atol=1e-7)
    product = torch.eye(full[0].shape[-1]).expand(2, -1, -1)
    for a in full:
        product = (a.mean(1) + torch.eye(a.shape[-1])) / 2 @ product
    row = product[:, 0, prefix:] if net.pools_class_token else product[:, prefix:, prefix:].mean(1)
    torch.testing.assert_close(rolled, row.reshape(2, 1, 11, 13), rtol=1e-4, atol=1e-7)


@every_net
def test_kept_patches_are_turned_by_their_own_positions(name: str) -> None:
    net, x = build(name), torch.randn(2, 3, 32, 48)
    whole, order = net(x), torch.stack([torch.randperm(24), torch.randperm(24)])
    shuffled = net(x, keep=order)  # all of them: in any order they are what they are
    torch.testing.assert_close(
        shuffled.patches.gather(1, order.argsort(1)[..., None].expand(-1, -1, 16)), whole.patches
    )
    torch.testing.assert_close(shuffled.pooled, whole.pooled)
    other = x.clone()
    other[0, :, :8, :8] += 3.0
    keep = order[:, :5].clone()
    keep[0][keep[0] == 0] = 23  # patch 0 of the first image is dropped
    torch.testing.assert_close(net(other, keep=keep).pooled, net(x, keep=keep).pooled)


def test_masked_patches_hide_their_pixels() -> None:
    net, x, mask = build("dinov3"), torch.randn(1, 3, 32, 32), torch.zeros(1, 16, dtype=torch.bool)
    net.add_mask_token(0.02)
    mask[0, 3:6] = True
    other = x.clone()
    other[:, :, :8, 24:] = 5.0  # patch 3
    other[:, :, 8:16, :16] = 5.0  # patches 4 and 5
    assert torch.equal(net(x, mask=mask).patches, net(other, mask=mask).patches)
    assert not torch.equal(net(x).patches, net(other).patches)


@every_net
def test_a_hollow_one_once_filled_is_the_whole_one(name: str) -> None:
    arch, args = NETS[name]
    net, x = build(name), torch.randn(1, 3, 32, 32)
    hollow = hollow_backbone(BackboneSpec(arch=arch, args=TINY_VIT | args), 32).eval()
    hollow.load_state_dict(net.state_dict(), assign=True)
    assert torch.equal(hollow(x).pooled, net(x).pooled)


def test_every_parameter_has_a_depth_and_blocks_are_deeper_each() -> None:
    net = build("dinov3")
    net.add_mask_token()
    depths = net.layer_depths()
    assert depths.keys() == dict(net.named_parameters()).keys()
    assert depths["net.blocks.0.attn.qkv.weight"] + 1 == depths["net.blocks.1.attn.qkv.weight"]
    assert depths["net.patch_embed.proj.weight"] == depths["mask_token"] == 0


def test_a_teachers_positions_are_not_shaken() -> None:
    torch.manual_seed(0)
    args = {"rope_rescale_coords": 2.0, "init_values": 1.0}
    net, x = vit(arch="vit_small_patch16_dinov3", args=args).train(), torch.randn(1, 3, 32, 32)
    assert not torch.equal(net(x).pooled, net(x).pooled)
    without_drop_path(net)
    assert torch.equal(net(x).pooled, net(x).pooled)


def test_dinos_resizing_is_for_tables_alone() -> None:
    assert vit(arch="vit_small_patch16_dinov3", position="dino").position == "timm"
    with pytest.raises(SpecError, match="other tokens than DINO's") as e:
        vit(arch="eva02_tiny_patch14_224", position="dino")
    assert e.value.hint == "--set backbone.position=timm"
