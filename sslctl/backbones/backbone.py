"""A timm model as an encoder: tokens, positions, the features after its last blocks."""

from __future__ import annotations

import copy
import functools
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import SpecError

VIT_EXAMPLE = "for example --arch vit_small_patch16_224"
Kind = Literal["vit", "cnn"]
Stem = Literal["imagenet", "small"]

SHORT = 256  # patches; of so few, the N x N matrices of attention are small beside the other activations


class Backbone(nn.Module):
    """An encoder without classifier: (B, 3, H, W) -> (B, dim).

    A ViT gives its [CLS] token after the final norm (the mean of its patches where it has no such token), any other
    net its pooled map. ``net`` is the plain timm model, so state names are ``net.<timm name>``. ``patch`` is 0 and
    ``image_size`` only informative for a net that is no ViT.
    """

    net: Any  # the timm model, an nn.Module
    grad_checkpointing = False  # run a ViT's blocks again in the backward pass in place of keeping what they hold

    def __init__(self, net: nn.Module, image_size: int, stem: Stem = "imagenet", position: str = "timm") -> None:
        super().__init__()
        self.net = net
        self.kind: Kind = "vit" if isinstance(net, VisionTransformer) else "cnn"
        self.stem = stem
        self.position = position
        self.image_size = image_size
        self.patch: int = self.net.patch_embed.patch_size[0] if self.kind == "vit" else 0
        self.dim: int = self.net.num_features if self.kind == "vit" else _width(net, image_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net.forward_head(self.tokens(x)) if self.kind == "vit" else self.net(x)
        return out  # (B, dim)

    def check_size(self, height: int, width: int) -> None:
        """SpecError, naming the nearest sizes, where images of ``height`` x ``width`` px cannot be cut into patches."""
        for size in (height, width):
            if self.kind == "vit" and (size % self.patch or size < self.patch):
                raise no_multiple(f"a view of {height}x{width} px", size, self.patch)

    def tokens(self, x: Tensor) -> Tensor:
        """All tokens of a ViT after the final norm, prefix ([CLS], registers) first: (B, N, D)."""
        t = self.embed(x)
        for block in self.net.blocks:
            again = self.grad_checkpointing and torch.is_grad_enabled()
            t = checkpoint(block, t, use_reentrant=False) if again else block(t)
        out: Tensor = self.net.norm(t)
        return out

    @functools.cached_property
    def stride(self) -> int:
        """Pixels of the image, each way, for one place of the last feature map; found without computing one."""
        if self.kind == "vit":
            return self.patch
        size = 256  # a multiple of every stride
        probe = copy.deepcopy(self.net).to("meta").eval()
        return size // int(probe.forward_features(torch.empty(1, 3, size, size, device="meta")).shape[-1])

    def intermediate(self, x: Tensor, n: int) -> list[Tensor]:
        """Tokens after each of the last ``n`` blocks, through the final norm (DINO's evaluation): n times (B, N, D)."""
        only_vit(self, "intermediate layers")
        t, found = self.embed(x), []
        for i, block in enumerate(self.net.blocks):
            t = block(t)
            if i >= len(self.net.blocks) - n:
                found.append(self.net.norm(t))
        return found

    def embed(self, x: Tensor) -> Tensor:
        """Tokens as the first block takes them: patches and prefix, with positions, (B, N, D)."""
        net = self.net
        self.check_size(*x.shape[-2:])
        # In bf16 on a CPU a training step with fused attention takes 1.4 times as long as with plain attention, and a
        # forward pass 1.04 to 1.1 times; of many tokens without gradient, fused attention saves the N x N matrix.
        half = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        plain = half and (torch.is_grad_enabled() or x.shape[-2] * x.shape[-1] <= SHORT * self.patch**2)
        for block in net.blocks:
            if type(getattr(block, "attn", None)) is Attention:
                block.attn.fused_attn = not plain
        t = net.patch_embed(x)  # (B, h, w, D)
        if self.position == "timm":
            t = net._pos_embed(t)  # (B, N, D)
        else:
            position = dino_positions(net.pos_embed, net.patch_embed.grid_size, t.shape[1:3])
            cls = net.cls_token.expand(t.shape[0], -1, -1)  # len() would fix the batch of a traced graph
            t = torch.cat([cls, t.flatten(1, 2)], 1)
            t = net.pos_drop(t + position)
        out: Tensor = net.norm_pre(net.patch_drop(t))
        return out


def dino_positions(table: Tensor, native: tuple[int, int], grid: torch.Size | tuple[int, int]) -> Tensor:
    """Position embeddings for ``grid`` (rows, columns) from a ``table`` (1, 1 + rows * columns, D) of the native grid.

    ``interpolate_pos_encoding`` of facebookresearch/dino, vision_transformer.py: bicubic without antialiasing, by
    scale factors with 0.1 added to the target size.
    """
    if tuple(grid) == tuple(native):
        return table
    patches = table[:, 1:].reshape(1, *native, -1).permute(0, 3, 1, 2)  # (1, D, rows, columns)
    scale = [(new + 0.1) / old for new, old in zip(grid, native, strict=True)]
    patches = F.interpolate(patches, scale_factor=scale, mode="bicubic")
    return torch.cat([table[:, :1], patches.flatten(2).transpose(1, 2)], 1)


def _width(net: nn.Module, image_size: int) -> int:
    """Length of the feature that ``net`` gives, found without computing one (and without moving its statistics)."""
    probe = copy.deepcopy(net).to("meta").eval()
    try:
        out = probe(torch.empty(1, 3, image_size, image_size, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as e:
        reason = str(e).splitlines()[0]
        raise SpecError(f"backbone: {type(net).__name__} fails on {image_size} px: {reason}", "use larger views") from e
    if not isinstance(out, Tensor) or out.ndim != 2:
        raise no_encoder(type(net).__name__, "it does not give one vector per image")
    return int(out.shape[1])


def no_multiple(what: str, size: int, patch: int) -> SpecError:
    below = size // patch * patch
    near = " or ".join(str(n) for n in (below, below + patch) if n)
    return SpecError(f"{what}: {size} is no multiple of the patch size {patch}", f"the nearest are {near} px")


def no_encoder(arch: str, reason: str) -> SpecError:
    return SpecError(
        f"backbone.arch '{arch}' cannot be used: {reason}", "take a ResNet, ConvNeXt, RegNet or ViT of timm"
    )


def only_vit(backbone: Backbone, what: str) -> None:
    if backbone.kind != "vit":
        raise SpecError(f"{what} need a ViT, this is a {type(backbone.net).__name__}", VIT_EXAMPLE)
