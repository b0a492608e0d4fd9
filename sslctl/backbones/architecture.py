"""What kind of ResNet or ViT a backbone is, in the words in which other libraries build one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers import GluMlp, LayerScale, Mlp, resample_abs_pos_embed
from timm.models.eva import Eva, EvaBlock
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ..errors import SpecError
from .backbone import Backbone
from .positions import dino_positions

ANY_NET = "--format onnx and pt2 take any encoder"


@dataclass(frozen=True)
class ResNetShape:
    """``depths`` and ``widths`` (output channels) of the stages; ``inner`` is the first bottleneck's width."""

    bottleneck: bool
    stem: int
    depths: list[int]
    widths: list[int]
    inner: int
    groups: int
    small: bool  # the stem for small images


@dataclass(frozen=True)
class ViTShape:
    """``special`` names everything that a plain ViT does not have."""

    size: int
    patch: int
    dim: int
    depth: int
    heads: int
    hidden: int
    registers: int
    qkv_bias: bool
    norm_eps: float
    special: set[str] = field(default_factory=set)


def resnet_shape(backbone: Backbone, who: str) -> ResNetShape:
    """Return the shape of a plain ResNet (also ResNeXt and wide ones).

    Raises SpecError for any other net, which ``who`` cannot take.
    """
    net = backbone.net
    if type(net) is not ResNet:
        raise SpecError(f"{who} takes ResNets, not a {backbone.family}", ANY_NET)
    stages: list[Any] = [net.layer1, net.layer2, net.layer3, net.layer4]
    blocks = [block for stage in stages for block in stage]
    first = blocks[0]
    plain = (
        all(type(module) is nn.Conv2d for module in net.modules() if isinstance(module, nn.Conv2d))  # no other padding
        and isinstance(net.conv1, nn.Conv2d)
        and len({type(block) for block in blocks}) == 1
        and type(first) in (BasicBlock, Bottleneck)
        and all(block.downsample is None or len(block.downsample) == 2 for block in blocks)
        and all(getattr(block, "se", None) is None and _off(getattr(block, "aa", None)) for block in blocks)
    )
    if not plain:
        raise SpecError(
            f"{who} has no ResNet like this one (its stem, padding, shortcuts or attention are other)", ANY_NET
        )
    bottleneck = type(first) is Bottleneck
    last = "bn3" if bottleneck else "bn2"
    widths = [len(getattr(stage[-1], last).weight) for stage in stages]
    depths = [len(stage) for stage in stages]
    inner, groups = first.conv2.out_channels, first.conv2.groups
    return ResNetShape(bottleneck, net.conv1.out_channels, depths, widths, inner, groups, backbone.stem == "small")


def small_stem_shape(backbone: Backbone) -> tuple[int, int]:
    """Return the channels and the padding of a ResNet's 3x3 convolution for small images."""
    conv = backbone.net.conv1
    return int(conv.out_channels), int(conv.padding[0])


def vit_shape(backbone: Backbone, size: int) -> ViTShape:
    """Return the shape of any ViT that ``build_backbone`` makes, for images of ``size`` px.

    Of blocks that are not plain it says only that, in ``special``.
    """
    net, block = backbone.net, backbone.net.blocks[0]
    registers = backbone.prefix_tokens - int(backbone.has_class_token)
    eps = float(getattr(net.norm, "eps", 0.0))
    rotary = {"rotary positions"} if getattr(net, "rope", None) is not None else set()
    if type(block) not in (Block, EvaBlock) or type(block.mlp) not in (Mlp, GluMlp):
        special = {"other blocks"} | rotary
        return ViTShape(size, backbone.patch, net.embed_dim, 0, 0, 0, registers, True, eps, special)
    scaled = isinstance(block.ls1, LayerScale) if type(block) is Block else block.gamma_1 is not None
    bias = getattr(block.attn, "q_bias", None) if block.attn.qkv is None else block.attn.qkv.bias
    found = {
        "no class token": not backbone.has_class_token,
        "another pooling": net.global_pool != "token" or not _off(net.fc_norm),
        "registers": registers > 0,
        "layer scale": scaled,
        "query-key norm": not (_off(block.attn.q_norm) and _off(block.attn.k_norm)),
        "a norm before the blocks": not _off(net.norm_pre),
        "SwiGLU": type(block.mlp) is GluMlp,
        "a norm in the MLP": not _off(block.mlp.norm),
        "no bias in qkv": bias is None,
        "EVA's blocks": type(block) is EvaBlock,
    }
    hidden = block.mlp.fc1.out_features
    return ViTShape(
        size,
        backbone.patch,
        net.embed_dim,
        backbone.depth,
        backbone.heads,
        hidden // 2 if found["SwiGLU"] else hidden,
        registers,
        not found["no bias in qkv"],
        eps,
        {name for name, is_so in found.items() if is_so} | rotary,
    )


def vit_positions(backbone: Backbone, size: int) -> tuple[Tensor, Tensor | None]:
    """Return positions of [CLS] and patches at ``size`` px (1, 1 + N, D), and registers with theirs added (1, R, D).

    Resized as the encoder does it itself, so that a library which resizes otherwise has nothing to resize. timm may
    give the prefix no positions (its own are then zero) or the registers some.
    """
    net, table = backbone.net, backbone.net.pos_embed
    prefix, native, grid = backbone.prefix_tokens, backbone.native_grid, (size // backbone.patch,) * 2
    if grid != native:
        if backbone.position == "dino":
            table = dino_positions(table, native, grid)
        else:
            table = resample_abs_pos_embed(table, grid, native, num_prefix_tokens=0 if net.no_embed_class else prefix)
    if net.no_embed_class:
        table = torch.cat([table.new_zeros(1, prefix, table.shape[2]), table], 1)
    registers = None if net.reg_token is None else net.reg_token + table[:, 1:prefix]
    return torch.cat([table[:, :1], table[:, prefix:]], 1), registers


def pooling(backbone: Backbone) -> dict[str, Any]:
    """Return timm's arguments for how a ViT pools its tokens."""
    word = "use_fc_norm" if isinstance(backbone.net, Eva) else "fc_norm"
    return {"global_pool": backbone.net.global_pool, word: not _off(backbone.net.fc_norm)}


def _off(module: nn.Module | None) -> bool:
    return module is None or isinstance(module, nn.Identity)
