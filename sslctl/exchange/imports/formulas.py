"""Features by the formulas of the papers, from a file's own tensors, without timm and without renaming.

An import is compared with them if the tool that wrote the file has no library to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
Padding = Literal["same", "solo"] | None


def resnet(s: State, x: Tensor, padding: Padding = None) -> Tensor:
    """Compute a ResNet in torchvision's names: (B, 3, H, W) -> (B, D), the mean of its last map.

    Deep Residual Learning (arXiv 1512.03385) with the stride in the 3x3 convolution (v1.5). ``same`` pads as TensorFlow
    does; ``solo`` pads a 3x3 stem by 2 px.
    """

    def conv(x: Tensor, name: str, stride: int = 1, pad: int | None = None) -> Tensor:
        weight = s[f"{name}.weight"].float()
        size = weight.shape[-1]
        pad = size // 2 if pad is None else pad
        if padding == "same" and stride > 1 and size > 1:
            x, pad = _pad_same(x, size, stride, 0.0), 0
        return F.conv2d(x, weight, None, stride, pad, groups=x.shape[1] // weight.shape[1])

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (s[f"{name}.{k}"].float() for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias)

    if s["conv1.weight"].shape[-1] == 3:
        x = norm(conv(x, "conv1", pad=2 if padding == "solo" else 1), "bn1").relu()
    else:
        x = norm(conv(x, "conv1", stride=2), "bn1").relu()
        wide = _pad_same(x, 3, 2, float("-inf")) if padding == "same" else F.pad(x, (1,) * 4, value=float("-inf"))
        x = F.max_pool2d(wide, 3, 2)
    last = 3 if "layer1.0.conv3.weight" in s else 2
    for stage in (1, 2, 3, 4):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in s:
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = x
            for i in range(1, last + 1):
                y = norm(conv(y, f"{at}.conv{i}", stride if i == last - 1 else 1), f"{at}.bn{i}")
                y = y if i == last else y.relu()
            if f"{at}.downsample.0.weight" in s:
                x = norm(conv(x, f"{at}.downsample.0", stride), f"{at}.downsample.1")
            x, block = (x + y).relu(), block + 1
    return x.mean((2, 3))


def vit(s: State, x: Tensor, heads: int, block: Callable[[int], str] = "blocks.{}.".format) -> Tensor:
    """Compute a ViT in Facebook's names at its native size: (B, 3, S, S) -> (B, D), [CLS] after the last norm.

    An Image is Worth 16x16 Words (arXiv 2010.11929) with DINOv2's layer scale, SwiGLU and registers (arXiv 2304.07193,
    2309.16588), and timm's; without [CLS], the mean of the patches. ``block`` returns a block's prefix.
    """

    def linear(t: Tensor, name: str) -> Tensor:
        bias = s.get(f"{name}.bias")
        return F.linear(t, s[f"{name}.weight"].float(), None if bias is None else bias.float())

    def norm(t: Tensor, name: str) -> Tensor:
        return F.layer_norm(t, t.shape[-1:], s[f"{name}.weight"].float(), s[f"{name}.bias"].float(), 1e-6)

    patch = s["patch_embed.proj.weight"].float()
    patches = F.conv2d(x, patch, s["patch_embed.proj.bias"].float(), stride=patch.shape[-1]).flatten(2).transpose(1, 2)
    table = s["pos_embed"].float()
    first = [s[k].float().expand(len(x), -1, -1) for k in ("cls_token", "reg_token") if k in s]
    t = torch.cat([*first, patches], 1)
    skip = t.shape[1] - table.shape[1]  # prefix tokens without positions
    t = torch.cat([t[:, :skip], t[:, skip:] + table], 1)
    if "register_tokens" in s:  # without positions, between [CLS] and the patches
        t = torch.cat([t[:, :1], s["register_tokens"].float().expand(len(x), -1, -1), t[:, 1:]], 1)
    depth = 0
    while f"{block(depth)}norm1.weight" in s:
        at = block(depth)
        qkv = linear(norm(t, f"{at}norm1"), f"{at}attn.qkv")
        q, k, v = qkv.reshape(*qkv.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)  # (B, heads, N, N)
        y = linear((weights @ v).transpose(1, 2).flatten(2), f"{at}attn.proj")
        t = t + y * s.get(f"{at}ls1.gamma", torch.ones(1)).float()
        y = norm(t, f"{at}norm2")
        if f"{at}mlp.w12.weight" in s:
            gate, value = linear(y, f"{at}mlp.w12").chunk(2, -1)
            y = linear(F.silu(gate) * value, f"{at}mlp.w3")
        else:
            y = linear(F.gelu(linear(y, f"{at}mlp.fc1")), f"{at}mlp.fc2")
        t = t + y * s.get(f"{at}ls2.gamma", torch.ones(1)).float()
        depth += 1
    if "cls_token" in s:
        return norm(t, "norm")[:, 0]
    return norm(t.mean(1), "fc_norm") if "fc_norm.weight" in s else norm(t, "norm").mean(1)


def rotary_vit(s: State, x: Tensor, heads: int) -> Tensor:
    """Compute a DINOv3 in Facebook's or timm's names: (B, 3, H, W) -> (B, D), [CLS] after the last norm.

    DINOv3 (arXiv 2508.10104) and facebookresearch/dinov3, layers/rope_position_encoding.py: queries and keys of patches
    are rotated by angles proportional to row and column, each between -1 and 1.
    """

    def weight(*names: str) -> Tensor | None:
        return next((s[name].float() for name in names if name in s), None)

    def linear(t: Tensor, name: str, bias: Tensor | None = None) -> Tensor:
        return F.linear(t, s[f"{name}.weight"].float(), weight(f"{name}.bias") if bias is None else bias)

    def norm(t: Tensor, name: str) -> Tensor:
        return F.layer_norm(t, t.shape[-1:], s[f"{name}.weight"].float(), s[f"{name}.bias"].float(), 1e-5)

    patch = s["patch_embed.proj.weight"].float()
    maps = F.conv2d(x, patch, s["patch_embed.proj.bias"].float(), stride=patch.shape[-1])  # (B, D, h, w)
    (h, w), dim = maps.shape[2:], maps.shape[1]
    periods = weight("rope_embed.periods")
    n = dim // heads // 4
    base = 100.0 if periods is None or n < 2 else float(periods[-1].double() ** (n / (n - 1)))
    base = 100.0 if abs(base - 100) < 1 else base  # the files round them
    rows, columns = ((torch.arange(size) + 0.5) / size * 2 - 1 for size in (h, w))
    positions = torch.cartesian_prod(rows, columns)  # (h w, 2)
    angles = (2 * torch.pi * positions[:, :, None] / base ** (torch.arange(n) / n)).flatten(1).repeat(1, 2)

    def rotate(t: Tensor) -> Tensor:
        left, right = t.chunk(2, -1)
        return t * angles.cos() + torch.cat([-right, left], -1) * angles.sin()

    first = [weight("cls_token"), weight("storage_tokens", "reg_token")]
    t = torch.cat(
        [token.expand(len(x), -1, -1) for token in first if token is not None] + [maps.flatten(2).transpose(1, 2)], 1
    )
    skip, depth = t.shape[1] - h * w, 0
    while f"blocks.{depth}.norm1.weight" in s:
        at = f"blocks.{depth}"
        bias, q_bias, mask = (weight(f"{at}.attn.{name}") for name in ("qkv.bias", "q_bias", "qkv.bias_mask"))
        if q_bias is not None:
            bias = torch.cat([q_bias, torch.zeros(dim), s[f"{at}.attn.v_bias"].float()])
        elif bias is not None and mask is not None:
            bias = torch.cat([bias[:dim], torch.zeros(dim), bias[2 * dim :]])
        qkv = linear(norm(t, f"{at}.norm1"), f"{at}.attn.qkv", bias)
        q, k, v = qkv.reshape(*qkv.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
        q, k = (torch.cat([y[:, :, :skip], rotate(y[:, :, skip:])], 2) for y in (q, k))
        weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)  # (B, heads, N, N)
        y = linear((weights @ v).transpose(1, 2).flatten(2), f"{at}.attn.proj")
        scales = [weight(f"{at}.ls{i}.gamma", f"{at}.gamma_{i}") for i in (1, 2)]
        t = t + y * (1.0 if scales[0] is None else scales[0])
        y = norm(t, f"{at}.norm2")
        gate, value, out = ("fc1_g", "fc1_x", "fc2") if f"{at}.mlp.fc1_g.weight" in s else ("w1", "w2", "w3")
        if f"{at}.mlp.{gate}.weight" in s:
            y = linear(F.silu(linear(y, f"{at}.mlp.{gate}")) * linear(y, f"{at}.mlp.{value}"), f"{at}.mlp.{out}")
        else:
            y = linear(F.gelu(linear(y, f"{at}.mlp.fc1")), f"{at}.mlp.fc2")
        t = t + y * (1.0 if scales[1] is None else scales[1])
        depth += 1
    return norm(t, "norm")[:, 0]


def _pad_same(x: Tensor, size: int, stride: int, value: float) -> Tensor:
    """Pad as TensorFlow's SAME does: as much as the windows need, the odd pixel on the right and below."""
    pads = []
    for side in reversed(x.shape[-2:]):
        need = max(0, (-(-side // stride) - 1) * stride + size - side)
        pads += [need // 2, need - need // 2]
    return F.pad(x, pads, value=value)
