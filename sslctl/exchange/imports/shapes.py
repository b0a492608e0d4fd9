"""The architecture of an encoder, read from the shapes of its weights in timm's names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import timm
import torch
from torch import Tensor

from ...errors import CheckpointError
from ...spec.schema import BackboneSpec

State = Mapping[str, Tensor]

# (bottleneck, blocks of the stages, groups, width of a bottleneck at 64 channels) -> timm's name.
RESNETS: dict[tuple[bool, tuple[int, ...], int, int], tuple[str, dict[str, Any]]] = {
    (False, (1, 1, 1, 1), 1, 64): ("resnet18", {"layers": [1, 1, 1, 1]}),
    (False, (2, 2, 2, 2), 1, 64): ("resnet18", {}),
    (False, (3, 4, 6, 3), 1, 64): ("resnet34", {}),
    (True, (2, 2, 2, 2), 1, 64): ("resnet26", {}),
    (True, (3, 4, 6, 3), 1, 64): ("resnet50", {}),
    (True, (3, 4, 23, 3), 1, 64): ("resnet101", {}),
    (True, (3, 8, 36, 3), 1, 64): ("resnet152", {}),
    (True, (3, 24, 36, 3), 1, 64): ("resnet50", {"layers": [3, 24, 36, 3]}),
    (True, (3, 4, 6, 3), 1, 128): ("wide_resnet50_2", {}),
    (True, (3, 4, 23, 3), 1, 128): ("wide_resnet101_2", {}),
    (True, (3, 4, 6, 3), 32, 4): ("resnext50_32x4d", {}),
    (True, (3, 4, 23, 3), 32, 8): ("resnext101_32x8d", {}),
}
PLAIN: dict[str, Any] = {
    "patch_size": 16, "mlp_ratio": 4.0, "qkv_bias": True, "qk_norm": False, "init_values": None, "reg_tokens": 0,
    "class_token": True, "no_embed_class": False, "swiglu": False,
}  # fmt: skip
SIZES = {  # width, depth, heads
    "tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16),
    "huge": (1280, 32, 16), "giant": (1536, 40, 24),
}  # fmt: skip
DINOV3 = {  # width, depth, heads, hidden width, gated MLP
    "vit_small_patch16_dinov3": (384, 12, 6, 1536, False), "vit_small_plus_patch16_dinov3": (384, 12, 6, 1536, True),
    "vit_base_patch16_dinov3": (768, 12, 12, 3072, False), "vit_large_patch16_dinov3": (1024, 24, 16, 4096, False),
    "vit_huge_plus_patch16_dinov3": (1280, 32, 20, 5120, True), "vit_7b_patch16_dinov3": (4096, 40, 32, 8192, True),
}  # fmt: skip
PERIODS = "rope_embed.periods"  # Facebook's name for what timm computes
HEADS = {1408: 16, 1664: 16}  # of timm's ViT-g and ViT-G
DEPTHS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 40, 48)


def resnet_spec(state: State, padding: Literal["same", "solo"] | None) -> tuple[BackboneSpec, int]:
    """Return the spec of a ResNet and its native size in px. Raises CheckpointError for an unknown one."""
    stem = _shape(state, "conv1.weight", 4)
    bottleneck = "layer1.0.conv3.weight" in state
    blocks = tuple(_count(state, f"layer{stage}.") for stage in (1, 2, 3, 4))
    last = "conv3" if bottleneck else "conv2"
    planes = [_shape(state, f"layer{s}.0.{last}.weight", 4)[0] // (4 if bottleneck else 1) for s in (1, 2, 3, 4)]
    groups, base = 1, 64
    if bottleneck:
        inner = _shape(state, "layer1.0.conv2.weight", 4)
        groups = inner[0] // inner[1]
        base = 64 * inner[0] // (planes[0] * groups)
    known = RESNETS.get((bottleneck, blocks, groups, base))
    if known is None or stem[1] != 3 or stem[2] not in (3, 7):
        kind = "bottleneck" if bottleneck else "basic"
        raise CheckpointError(
            f"{kind} blocks {list(blocks)} in {groups} groups of width {base}, a stem {list(stem)}: not a known "
            "ResNet; some of its blocks may be missing"
        )
    arch, args = known
    width = None
    if planes == [stem[0] * 2**i for i in range(4)] and stem[0] % 64 == 0:
        width = stem[0] // 64 if stem[0] > 64 else None
    elif stem[0] == 64:
        args = args | {"channels": planes}
    else:
        raise CheckpointError(f"a stem of {stem[0]} and stages of {planes} channels: not a known ResNet")
    small = stem[2] == 3
    pads = padding if padding == "same" or (small and padding == "solo") else None
    spec = BackboneSpec(arch=arch, stem="small" if small else "imagenet", width=width, padding=pads, args=args)
    return spec, 32 if small else 224


def vit_spec(
    state: State, heads: int | None, position: str, depth: int | None, whole: bool = False
) -> tuple[BackboneSpec, int]:
    """Return the spec of a ViT and its native size in px.

    ``heads`` are given if they are not usual for this width, since no shape shows them. ``depth`` states the number of
    blocks, ``whole`` that none is missing; otherwise a number that looks like that of a truncated file is refused.
    Raises CheckpointError.
    """
    dim, patch = _patches(state)
    blocks = _count(state, "blocks.")
    _refuse_truncated(dim, blocks, blocks if whole and depth is None else depth)
    heads = heads or usual_heads(dim) or max(1, dim // 64)
    if dim % heads:
        raise CheckpointError(f"a width of {dim} is not a multiple of {heads} heads")
    hidden = _shape(state, "blocks.0.mlp.fc1.weight", 2)[0]
    swiglu = hidden == 2 * _shape(state, "blocks.0.mlp.fc2.weight", 2)[1]
    target = PLAIN | {
        "embed_dim": dim, "depth": blocks, "num_heads": heads, "patch_size": patch, "swiglu": swiglu,
        "mlp_ratio": (hidden if hidden % dim == 0 or swiglu else hidden + 0.5) / dim,  # timm cuts the product off
        "qkv_bias": "blocks.0.attn.qkv.bias" in state, "qk_norm": "blocks.0.attn.q_norm.weight" in state,
        "init_values": 1e-5 if "blocks.0.ls1.gamma" in state else None,
        "reg_tokens": _shape(state, "reg_token", 3)[1] if "reg_token" in state else 0,
        "class_token": "cls_token" in state,
    }  # fmt: skip
    side, target["no_embed_class"] = _grid(_shape(state, "pos_embed", 3)[1], target)
    arch, args = _nearest(target)
    if not target["class_token"]:
        args |= {"global_pool": "avg", "fc_norm": "fc_norm.weight" in state}
    if target["reg_tokens"] or target["no_embed_class"] or not target["class_token"]:
        position = "timm"  # DINO's resizing is of [CLS] and patches; DINOv2's with registers is timm's
    return BackboneSpec(arch=arch, position="dino" if position == "dino" else "timm", args=args), side * patch


def rotary_vit_spec(
    state: State, heads: int | None, depth: int | None, whole: bool = False
) -> tuple[BackboneSpec, int]:
    """Return the spec of a ViT with rotary positions as in DINOv3, and an image size in px for it.

    ``heads``, ``depth`` and ``whole`` as for ``vit_spec``; Facebook's files contain the periods of the positions, which
    determine heads and base. Raises CheckpointError.
    """
    dim, patch = _patches(state)
    blocks = _count(state, "blocks.")
    _refuse_truncated(dim, blocks, blocks if whole and depth is None else depth)
    base = 100.0
    if PERIODS in state:
        count, base = len(state[PERIODS]), _base_of(state[PERIODS])
        heads = heads or dim // (4 * count)
    heads = heads or next((size[2] for size in DINOV3.values() if size[0] == dim), None) or max(1, dim // 64)
    if dim % (4 * heads):
        raise CheckpointError(
            f"rotary positions need a width that is a multiple of 4 times the {heads} heads, not {dim}"
        )
    gated = "blocks.0.mlp.fc1_g.weight" in state
    hidden = _shape(state, f"blocks.0.mlp.fc1{'_g' * gated}.weight", 2)[0]
    arch = next((name for name, size in DINOV3.items() if size == (dim, blocks, heads, hidden, gated)), None)
    args: dict[str, Any] = {} if patch == 16 else {"patch_size": patch}
    if arch is None:
        arch = "vit_small_patch16_dinov3"
        ratio = (hidden if hidden % dim == 0 else hidden + 0.5) / dim  # timm cuts the product off
        args |= {"embed_dim": dim, "depth": blocks, "num_heads": heads, "mlp_ratio": ratio}
        args |= {"swiglu_mlp": True, "swiglu_align_to": 1} if gated else {}
    if "blocks.0.attn.qkv.bias" in state:
        args |= {"attn_type": "rope", "qkv_bias": True}
    elif "blocks.0.attn.q_bias" in state:
        args |= {"qkv_bias": True}
    registers = _shape(state, "reg_token", 3)[1] if "reg_token" in state else 0
    args |= {} if registers == 4 else {"num_reg_tokens": registers}
    args |= {} if base == 100 else {"rope_temperature": base}
    return BackboneSpec(arch=arch, args=args), 224 // patch * patch


def rotary_native_size(state: State) -> int:
    """Return the native size in px of a ViT's position table, or about 224 if it has only rotary positions."""
    _, patch = _patches(state)
    if "pos_embed" not in state:
        return 224 // patch * patch
    tokens = _shape(state, "pos_embed", 3)[1]
    return math.isqrt(tokens) * patch  # [CLS] is one token more than a square


def are_rounded(periods: Tensor) -> bool:
    """Return whether the periods of rotary positions differ from the powers of their base in float32."""
    n = len(periods)
    return not torch.allclose(periods.float(), _base_of(periods) ** (torch.arange(n) / n), rtol=1e-5)


def _base_of(periods: Tensor) -> float:
    """Return the base whose powers, base ** (i / n), are the n periods of DINOv3's positions.

    Raises CheckpointError if there is none. Facebook's files may round them to bfloat16.
    """
    n = len(periods)
    base = float(periods[-1].double() ** (n / (n - 1))) if n > 1 else 100.0
    base = 100.0 if abs(base - 100) < 1 else base
    expected = base ** (torch.arange(n) / n)
    if not torch.allclose(periods.float(), expected, rtol=2**-7):
        raise CheckpointError(f"{PERIODS}: the periods of its positions are not powers of a base")
    return base


def _patches(state: State) -> tuple[int, int]:
    """Return width and patch size of a ViT."""
    projection = _shape(state, "patch_embed.proj.weight", 4)
    dim, patch = projection[0], projection[-1]
    if projection[1] != 3 or projection[2] != patch:
        raise CheckpointError(f"patch_embed.proj.weight has the shape {projection}: not square patches of RGB")
    return dim, patch


def usual_heads(dim: int) -> int | None:
    """Return the heads of known ViTs of width ``dim``, None if there are none."""
    return HEADS.get(dim) or next((heads for width, _, heads in SIZES.values() if width == dim), None)


def _nearest(target: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return timm's name with the fewest differences from ``target``, and these differences as arguments."""
    candidates: list[tuple[str, dict[str, Any]]] = []
    models = set(timm.list_models("vit_*"))
    for size, (dim, depth, heads) in SIZES.items():
        args = PLAIN | {"embed_dim": dim, "depth": depth, "num_heads": heads}
        for patch in (16, 8, 14, 32) if size != "giant" else ():  # timm's plain giant is another network
            candidates.append((f"vit_{size}_patch{patch}_224", args | {"patch_size": patch}))
        dinov2 = args | {"patch_size": 14, "init_values": 1e-5}
        if size == "giant":
            dinov2 |= {"swiglu": True, "mlp_ratio": 2 * 4096 / 1536}
        candidates.append((f"vit_{size}_patch14_dinov2", dinov2))
        candidates.append((f"vit_{size}_patch14_reg4_dinov2", dinov2 | {"reg_tokens": 4, "no_embed_class": True}))
    best = [
        (name, {key: value for key, value in target.items() if value != args[key]})
        for name, args in candidates
        if name in models and args["swiglu"] == target["swiglu"]
    ]
    arch, args = min(best, key=lambda candidate: len(candidate[1]))
    return arch, args


def _grid(tokens: int, target: dict[str, Any]) -> tuple[int, bool]:
    """Return the patches per side of the position grid, and whether prefix tokens have no positions."""
    prefix = int(target["class_token"]) + target["reg_tokens"]
    for skipped in dict.fromkeys((prefix, 0)):
        side = math.isqrt(max(0, tokens - skipped))
        if side and side * side == tokens - skipped:
            return side, skipped != prefix
    raise CheckpointError(f"pos_embed has {tokens} rows: not a square of patches plus {prefix} other tokens")


def _refuse_truncated(dim: int, blocks: int, depth: int | None) -> None:
    usual = next((d for width, d, _ in SIZES.values() if width == dim), 12)
    if depth == blocks or blocks == usual:
        return
    if depth is not None:
        raise CheckpointError(f"--depth {depth}: the file has {blocks} blocks")
    if blocks not in DEPTHS or usual // 2 < blocks < usual:
        raise CheckpointError(
            f"{blocks} blocks of width {dim}, where such ViTs have {usual}: some may be missing",
            f"if none is missing: sslctl import FILE --depth {blocks}",
        )


def _shape(state: State, name: str, axes: int) -> tuple[int, ...]:
    if name not in state:
        raise CheckpointError(f"missing: {name}")
    if state[name].ndim != axes or not state[name].numel():
        raise CheckpointError(f"{name} has the shape {tuple(state[name].shape)} instead of {axes} axes")
    return tuple(state[name].shape)


def _count(state: State, prefix: str) -> int:
    numbers = {name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)}
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)
