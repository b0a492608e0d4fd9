"""What kind of ResNet or ViT a timm model is, in the words in which other libraries build one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers import GluMlp, LayerScale, Mlp, resample_abs_pos_embed
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ...backbones import Backbone, dino_positions
from ...errors import SpecError
from ...runs.encoder import LoadedEncoder

ANY = "--format onnx and pt2 take any encoder"


@dataclass(frozen=True)
class ResNetShape:
    """``depths`` and ``widths`` (channels that come out) of the stages; ``inner`` is the first bottleneck's width."""

    bottleneck: bool
    stem: int
    depths: list[int]
    widths: list[int]
    inner: int
    groups: int
    small: bool  # the stem for small images


@dataclass(frozen=True)
class ViTShape:
    """``special`` names what a plain ViT does not have; None of it is left unsaid."""

    size: int
    patch: int
    dim: int
    depth: int
    heads: int
    hidden: int
    registers: int
    qkv_bias: bool
    special: set[str] = field(default_factory=set)


def resnet_shape(backbone: Backbone, who: str) -> ResNetShape:
    """Of a plain ResNet (also ResNeXt and wide ones); SpecError for any other net, which ``who`` has no word for."""
    net = backbone.net
    if type(net) is not ResNet:
        raise SpecError(f"{who} takes ResNets, not a {type(net).__name__}", ANY)
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
        raise SpecError(f"{who} has no ResNet like this one (its stem, padding, shortcuts or attention are other)", ANY)
    bottleneck = type(first) is Bottleneck
    last = "bn3" if bottleneck else "bn2"
    widths = [len(getattr(stage[-1], last).weight) for stage in stages]
    depths = [len(stage) for stage in stages]
    inner, groups = first.conv2.out_channels, first.conv2.groups
    return ResNetShape(bottleneck, net.conv1.out_channels, depths, widths, inner, groups, backbone.stem == "small")


def vit_shape(backbone: Backbone, size: int) -> ViTShape:
    """Of any ViT that ``build_backbone`` makes, for images of ``size`` px.

    Of blocks that are no plain ones it is only said that they are not.
    """
    net, block = backbone.net, backbone.net.blocks[0]
    registers = net.num_prefix_tokens - int(net.has_class_token)
    if type(block) is not Block or type(block.mlp) not in (Mlp, GluMlp):
        return ViTShape(size, backbone.patch, net.embed_dim, 0, 0, 0, registers, True, {"other blocks"})
    found = {
        "no class token": not net.has_class_token,
        "another pooling": net.global_pool != "token" or not _off(net.fc_norm),
        "registers": registers > 0,
        "layer scale": isinstance(block.ls1, LayerScale),
        "query-key norm": not (_off(block.attn.q_norm) and _off(block.attn.k_norm)),
        "a norm before the blocks": not _off(net.norm_pre),
        "SwiGLU": type(block.mlp) is GluMlp,
        "a norm in the MLP": not _off(block.mlp.norm),
        "no bias in qkv": block.attn.qkv.bias is None,
    }
    hidden = block.mlp.fc1.out_features
    return ViTShape(
        size,
        backbone.patch,
        net.embed_dim,
        len(net.blocks),
        block.attn.num_heads,
        hidden // 2 if found["SwiGLU"] else hidden,
        registers,
        not found["no bias in qkv"],
        {name for name, is_so in found.items() if is_so},
    )


def vit_positions(backbone: Backbone, size: int) -> tuple[Tensor, Tensor | None]:
    """Positions of [CLS] and patches at images of ``size`` px (1, 1 + N, D), and registers (1, R, D) with theirs added.

    Resized as the encoder does it itself, so that a library which resizes otherwise has nothing to resize. timm may
    give the prefix no positions (its own are then zero) or the registers some.
    """
    net, table = backbone.net, backbone.net.pos_embed
    prefix, grid = net.num_prefix_tokens, (size // backbone.patch,) * 2
    if grid != tuple(net.patch_embed.grid_size):
        if backbone.position == "dino":
            table = dino_positions(table, net.patch_embed.grid_size, grid)
        else:
            table = resample_abs_pos_embed(
                table, grid, net.patch_embed.grid_size, num_prefix_tokens=0 if net.no_embed_class else prefix
            )
    if net.no_embed_class:
        table = torch.cat([table.new_zeros(1, prefix, table.shape[2]), table], 1)
    registers = None if net.reg_token is None else net.reg_token + table[:, 1:prefix]
    return torch.cat([table[:, :1], table[:, prefix:]], 1), registers


def two_sizes(encoder: LoadedEncoder, native: bool = False) -> list[tuple[int, int]]:
    """The size of its images, and, unless ``native`` is all there is, a larger one that is not square."""
    size = encoder.meta.image.size
    if native:
        return [(size, size)]
    step = encoder.backbone.patch or 8
    return [(size, size), (size + 3 * step, size + 2 * step)]


def _off(module: nn.Module | None) -> bool:
    return module is None or isinstance(module, nn.Identity)
