"""timm models by name as encoders: stems, positions, tokens, attention; no other file knows a backbone's insides."""

from __future__ import annotations

import copy
import re
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from timm.layers import Attention, DropPath, PatchEmbed
from timm.models import ResNet, VisionTransformer, get_pretrained_cfg, is_model_in_modules
from torch import Tensor, nn

from .errors import SpecError, closest
from .spec import BackboneSpec

SMALL = 64  # px; below, a ResNet's stem would leave too little to look at
OURS = {"num_classes", "pretrained", "in_chans", "img_size", "dynamic_img_size", "drop_path_rate", "features_only"}
VIT_EXAMPLE = "for example --arch vit_small_patch16_224"
Kind = Literal["vit", "cnn"]
Stem = Literal["imagenet", "small"]


class Backbone(nn.Module):
    """An encoder without classifier: (B, 3, H, W) -> (B, dim).

    A ViT gives its [CLS] token after the final norm (the mean of its patches where it has no such token), any other
    net its pooled map. ``net`` is the plain timm model, so state names are ``net.<timm name>``. ``patch`` is 0 and
    ``image_size`` only informative for a net that is no ViT.
    """

    net: Any  # the timm model, an nn.Module

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
                raise _no_multiple(f"a view of {height}x{width} px", size, self.patch)

    def tokens(self, x: Tensor) -> Tensor:
        """All tokens of a ViT after the final norm, prefix ([CLS], registers) first: (B, N, D)."""
        out: Tensor = self.net.norm(self.net.blocks(self._embed(x)))
        return out

    def intermediate(self, x: Tensor, n: int) -> list[Tensor]:
        """Tokens after each of the last ``n`` blocks, through the final norm (DINO's evaluation): n times (B, N, D)."""
        _only_vit(self, "intermediate layers")
        t, found = self._embed(x), []
        for i, block in enumerate(self.net.blocks):
            t = block(t)
            if i >= len(self.net.blocks) - n:
                found.append(self.net.norm(t))
        return found

    def _embed(self, x: Tensor) -> Tensor:
        net = self.net
        self.check_size(*x.shape[-2:])
        # In bf16 on a CPU a training step with fused attention takes 1.4 times as long as with plain attention.
        plain = x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
        for block in net.blocks:
            if type(getattr(block, "attn", None)) is Attention:
                block.attn.fused_attn = not plain
        t = net.patch_embed(x)  # (B, h, w, D)
        if self.position == "timm":
            t = net._pos_embed(t)  # (B, N, D)
        else:
            position = dino_positions(net.pos_embed, net.patch_embed.grid_size, t.shape[1:3])
            t = torch.cat([net.cls_token.expand(len(t), -1, -1), t.flatten(1, 2)], 1)
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


def build_backbone(spec: BackboneSpec, image_size: int) -> Backbone:
    """The encoder that ``spec`` names, freshly initialised as timm does (which draws from torch's global generator).

    ``image_size`` is that of the largest global view: the native grid of a ViT, and what ``stem: auto`` goes by.
    Further arguments of timm pass through ``spec.args``, for example ``zero_init_last: false`` (timm's ResNets begin
    with zero in the last norm of each block), ``channels: [16, 32, 64, 128]`` or ``patch_size: 4``.
    Raises SpecError for an unknown name, for a model that is no plain encoder, and for sizes that do not fit.
    """
    names = timm.list_models()
    if spec.arch not in names:
        raise SpecError(
            f"backbone.arch '{spec.arch}': no model of timm{closest(spec.arch, names)}", "see timm.list_models()"
        )
    if taken := sorted(OURS & spec.args.keys()):
        raise SpecError(f"backbone.args.{taken[0]}: set by sslctl itself", "leave it out")
    if is_model_in_modules(spec.arch, ["vision_transformer", "deit"]):
        return _build_vit(spec, image_size)
    return _build_cnn(spec, image_size)


def without_drop_path(net: nn.Module) -> nn.Module:
    """``net`` itself with stochastic depth switched off; a teacher looks at its images whole."""
    for module in net.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    return net


def attention(backbone: Backbone, x: Tensor, block: int = -1) -> Tensor:
    """How much [CLS] attends to each patch in a block of a ViT: (B, 3, H, W) -> (B, heads, H / patch, W / patch).

    The row of ``get_last_selfattention`` in facebookresearch/dino: the softmax runs over every token, prefix included,
    so a head's map sums to less than one. Only that row is computed, never the N x N matrix.
    Raises SpecError for a backbone without such maps or block.
    """
    _only_vit(backbone, "attention maps")
    net, blocks = backbone.net, backbone.net.blocks
    if not -len(blocks) <= block < len(blocks):
        raise SpecError(
            f"--block {block}: the backbone has {len(blocks)}", f"0 to {len(blocks) - 1}, or -1 for the last"
        )
    if not net.has_class_token or type(getattr(blocks[block], "attn", None)) is not Attention:
        raise SpecError("attention maps need a ViT with a class token and plain attention", VIT_EXAMPLE)
    t = backbone._embed(x)
    last = block % len(blocks)
    for earlier in blocks[:last]:
        t = earlier(t)
    attn, t = blocks[last].attn, blocks[last].norm1(t)
    q_weight, k_weight, _ = attn.qkv.weight.chunk(3)
    q_bias, k_bias, _ = (None, None, None) if attn.qkv.bias is None else attn.qkv.bias.chunk(3)

    def heads(y: Tensor) -> Tensor:
        return y.reshape(*y.shape[:2], attn.num_heads, -1).transpose(1, 2)  # (B, heads, n, head width)

    q = attn.q_norm(heads(F.linear(t[:, :1], q_weight, q_bias)))
    k = attn.k_norm(heads(F.linear(t, k_weight, k_bias)))
    row: Tensor = (q * attn.scale @ k.transpose(2, 3)).softmax(-1)[
        :, :, 0, net.num_prefix_tokens :
    ]  # (B, heads, h * w)
    return row.reshape(*row.shape[:2], x.shape[-2] // backbone.patch, -1)


def _build_vit(spec: BackboneSpec, image_size: int) -> Backbone:
    if spec.stem == "small":
        raise SpecError(f"backbone.stem small: {spec.arch} has patches, no stem", "--set backbone.args.patch_size=4")
    in_name = re.search(r"_patch(\d+)", spec.arch)
    patch = spec.args.get("patch_size", int(in_name[1]) if in_name else None)
    if isinstance(patch, int) and patch > 0:
        if image_size % patch:
            raise _no_multiple(f"{spec.arch} at {image_size} px", image_size, patch)
        if (n := image_size // patch) < 3:
            raise SpecError(
                f"{spec.arch} cuts views of {image_size} px into only {n}x{n} patches of {patch} px",
                f"use larger views or smaller patches: --set backbone.args.patch_size={max(2, image_size // 8)}",
            )
    net = _create(spec, img_size=image_size, dynamic_img_size=True)
    if type(net) is not VisionTransformer or type(net.patch_embed) is not PatchEmbed or net.pos_embed is None:
        raise _no_encoder(spec.arch, "it is no plain ViT")
    net.reset_classifier(0, "token" if net.has_class_token else "avg")
    if spec.position == "dino" and (net.num_prefix_tokens != 1 or net.no_embed_class):
        raise SpecError(f"backbone.position dino: {spec.arch} has other tokens than DINO's", "leave it at timm")
    return Backbone(net, image_size, position=spec.position)


def _build_cnn(spec: BackboneSpec, image_size: int) -> Backbone:
    cfg = get_pretrained_cfg(spec.arch)
    if cfg is not None and cfg.fixed_input_size:
        raise _no_encoder(spec.arch, "it takes images of one size only")
    if spec.position != "timm":
        raise SpecError(f"backbone.position {spec.position}: {spec.arch} has no positions", "leave it at timm")
    net = _create(spec)
    stem: Stem = "imagenet"
    if spec.stem == "small" or (spec.stem == "auto" and image_size < SMALL and type(net) is ResNet):
        if type(net) is not ResNet:
            raise SpecError(f"backbone.stem small: {spec.arch} is no ResNet", "for example --arch resnet18")
        small_stem(net)
        stem = "small"
    return Backbone(net, image_size, stem)


def small_stem(net: Any) -> None:
    """Give a timm ResNet the stem for small images, in place: one 3x3 convolution of stride 1, no max-pool (CIFAR)."""
    net.conv1 = nn.Conv2d(3, len(net.bn1.weight), 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()


def _create(spec: BackboneSpec, **more: Any) -> Any:
    if spec.drop_path:
        more["drop_path_rate"] = spec.drop_path
    try:
        return timm.create_model(spec.arch, pretrained=False, num_classes=0, **spec.args, **more)
    except Exception as e:  # timm checks its arguments by failing somewhere inside
        given = ", ".join(f"{k}={v!r}" for k, v in (spec.args | more).items())
        raise SpecError(f"backbone: timm cannot build {spec.arch} ({given}): {e}", "see backbone.args") from e


def _width(net: nn.Module, image_size: int) -> int:
    """Length of the feature that ``net`` gives, found without computing one (and without moving its statistics)."""
    probe = copy.deepcopy(net).to("meta").eval()
    try:
        out = probe(torch.empty(1, 3, image_size, image_size, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as e:
        reason = str(e).splitlines()[0]
        raise SpecError(f"backbone: {type(net).__name__} fails on {image_size} px: {reason}", "use larger views") from e
    if not isinstance(out, Tensor) or out.ndim != 2:
        raise _no_encoder(type(net).__name__, "it does not give one vector per image")
    return int(out.shape[1])


def _no_multiple(what: str, size: int, patch: int) -> SpecError:
    below = size // patch * patch
    near = " or ".join(str(n) for n in (below, below + patch) if n)
    return SpecError(f"{what}: {size} is no multiple of the patch size {patch}", f"the nearest are {near} px")


def _no_encoder(arch: str, reason: str) -> SpecError:
    return SpecError(
        f"backbone.arch '{arch}' cannot be used: {reason}", "take a ResNet, ConvNeXt, RegNet or ViT of timm"
    )


def _only_vit(backbone: Backbone, what: str) -> None:
    if backbone.kind != "vit":
        raise SpecError(f"{what} need a ViT, this is a {type(backbone.net).__name__}", VIT_EXAMPLE)
