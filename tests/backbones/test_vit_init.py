"""How MAE starts a ViT: the spread of its weights, fixed positions, and what stays as it was."""

from __future__ import annotations

import math

import torch

from sslctl.backbones.positions import sincos_positions
from sslctl.backbones.vit_init import begin_as_mae, begin_as_moco_v3

from .nets import vit


def test_a_vit_begins_as_maes() -> None:
    torch.manual_seed(0)
    backbone = vit(args={"embed_dim": 64})
    net = backbone.net
    bias = net.patch_embed.proj.bias.detach().clone()
    begin_as_mae(backbone)
    limits = {
        net.blocks[0].attn.qkv: math.sqrt(6 / (3 * 64 + 64)),  # q, k and v are one matrix
        net.blocks[1].mlp.fc1: math.sqrt(6 / (64 + 256)),
        net.patch_embed.proj: math.sqrt(6 / (3 * 8 * 8 + 64)),
    }
    for module, limit in limits.items():
        assert 0.95 * limit < float(module.weight.detach().abs().max()) <= limit
        assert abs(float(module.weight.detach().std()) * math.sqrt(3) / limit - 1) < 0.06
    assert not net.blocks[0].attn.qkv.bias.any() and torch.equal(net.patch_embed.proj.bias, bias)
    assert 0.01 < float(net.cls_token.detach().std()) < 0.03
    assert torch.equal(net.pos_embed, sincos_positions((4, 4), 64, columns_first=True))
    assert not net.pos_embed.requires_grad and net.patch_embed.proj.weight.requires_grad


def test_registers_have_no_fixed_position_and_rotary_positions_stay() -> None:
    registers = vit(args={"reg_tokens": 2})
    registers.fix_positions()
    assert not registers.net.pos_embed[:, :3].any()
    assert torch.equal(registers.net.pos_embed[:, 3:], sincos_positions((4, 4), 16)[:, 1:])
    rotary = vit(arch="vit_small_patch16_dinov3")
    begin_as_moco_v3(rotary, freeze_patches=True)
    assert rotary.net.pos_embed is None and not rotary.net.patch_embed.proj.weight.requires_grad
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(rotary.eval()(x).pooled, rotary(x).pooled)
