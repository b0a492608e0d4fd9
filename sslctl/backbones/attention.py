"""Where a backbone looks: attention of a block, rollout through all blocks, and what a feature map says of an image."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn

from ..errors import SpecError
from .backbone import PLAIN_ATTENTION, VIT_EXAMPLE, Backbone, Features

ROWS = 128  # queries whose attention is in memory at a time; never a whole N x N matrix


def attention(backbone: Backbone, x: Tensor, block: int = -1) -> Tensor:
    """Return how much the output attends to each patch in a block of a ViT: (B, 3, H, W) -> (B, heads, h, w).

    The output is [CLS]: that row of ``get_last_selfattention`` in facebookresearch/dino, where the softmax runs over
    every token, prefix included, so that a head's map sums to less than one. A net without [CLS] pools its patches: the
    mean of their rows. Raises SpecError for a backbone without such maps or block.
    """
    _require_plain_attention(backbone)
    if not -backbone.depth <= block < backbone.depth:
        raise SpecError(
            f"--block {block}: the backbone has {backbone.depth}", f"0 to {backbone.depth - 1}, or -1 for the last"
        )
    with _attention_inputs(backbone, [block % backbone.depth]) as inputs:
        features = backbone(x)
    [(attn, t, rope)] = inputs
    first, weights = _output(backbone, t)
    return _on_grid(features, _attended(attn, t, rope, first, weights))


def rollout(backbone: Backbone, x: Tensor) -> Tensor:
    """Return how much of each patch reaches the output through all blocks: (B, 3, H, W) -> (B, 1, h, w).

    Attention rollout (Abnar & Zuidema 2020, section 4): the product over the blocks of the mean over heads, averaged
    with the identity for the residual connection. Only the output's row of that product is carried, from the last
    block to the first. Raises SpecError for a backbone without such maps.
    """
    _require_plain_attention(backbone)
    with _attention_inputs(backbone, range(backbone.depth)) as inputs:
        features = backbone(x)
    t = inputs[-1][1]
    first, weights = _output(backbone, t)
    row = t.new_zeros(t.shape[:2])
    row[:, first : first + weights.shape[1]] = weights
    for attn, t, rope in reversed(inputs):
        row = (row + _attended(attn, t, rope, 0, row).mean(1)) / 2  # (B, N)
    return _on_grid(features, row[:, None])


def activation(backbone: Backbone, x: Tensor) -> Tensor:
    """Return the length of the feature at each place: (B, 3, H, W) -> (B, 1, h, w)."""
    length: Tensor = torch.linalg.vector_norm(backbone(x).map, dim=1, keepdim=True)
    return length


def own_grad_cam(backbone: Backbone, x: Tensor) -> Tensor:
    """Return which places made the embedding what it is: (B, 3, H, W) -> (B, 1, h, w), never negative.

    Grad-CAM (Selvaraju et al. 2017, equations 1 and 2) without a class: its score is the product of the averaged map
    with its own direction, of which the gradient is that direction, the same at each place. So this is each place's
    feature times that direction. Where a net has a norm after the average, it is left out: lengths are equal behind it.
    Raises SpecError for a ViT, whose output reads its patches inside the blocks only.
    """
    if backbone.is_vit:
        raise SpecError("--kind grad-cam is for convolutional nets", "--kind attention or rollout")
    features: Tensor = backbone(x).map
    direction = F.normalize(features.mean((2, 3), keepdim=True), dim=1)  # (B, D, 1, 1)
    return (direction * features).sum(1, keepdim=True).relu()


def _require_plain_attention(backbone: Backbone) -> None:
    backbone.require_vit("attention maps")
    if not all(type(getattr(block, "attn", None)) in PLAIN_ATTENTION for block in backbone.net.blocks):
        raise SpecError("attention maps need a ViT of blocks with plain attention", VIT_EXAMPLE)


Input = tuple[Any, Tensor, Tensor | None]  # an attention layer, the tokens that enter it (B, N, D), rotary positions


@contextlib.contextmanager
def _attention_inputs(backbone: Backbone, blocks: Any) -> Iterator[list[Input]]:
    """Record what enters the attention of ``blocks`` in the passes of ``backbone`` that run within."""
    inputs: list[Input] = []

    def record(attn: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        inputs.append((attn, args[0], kwargs.get("rope")))

    hooks = [backbone.net.blocks[i].attn.register_forward_pre_hook(record, with_kwargs=True) for i in blocks]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


def _output(backbone: Backbone, t: Tensor) -> tuple[int, Tensor]:
    """Return the first of the tokens that make the output, and how much each of them weighs in it: (B, n)."""
    if backbone.pools_class_token:
        return 0, t.new_ones(len(t), 1)
    patches = t.shape[1] - backbone.prefix_tokens
    return backbone.prefix_tokens, t.new_full((len(t), patches), 1 / patches)


def _attended(attn: Any, t: Tensor, rope: Tensor | None, first: int, weights: Tensor) -> Tensor:
    """Sum rows ``first`` and on of the attention of tokens ``t`` (B, N, D), weighted by ``weights`` (B, n).

    -> (B, heads, N). A few rows are in memory at a time.
    """
    (q_weight, q_bias), (k_weight, k_bias) = _projections(attn)

    def heads(y: Tensor, count: int) -> Tensor:
        return y.reshape(*y.shape[:2], count, -1).transpose(1, 2)  # (B, heads, n, head width)

    def rotated(y: Tensor, start: int) -> Tensor:
        """Turn ``y`` (B, heads, n, head width), of the tokens from ``start`` on, by the positions of the patches."""
        prefix = max(0, attn.num_prefix_tokens - start) if rope is not None else y.shape[2]
        if rope is None or prefix >= y.shape[2]:
            return y
        at = start + prefix - attn.num_prefix_tokens
        turns = rope[..., at : at + y.shape[2] - prefix, :]
        return torch.cat([y[:, :, :prefix], apply_rot_embed_cat(y[:, :, prefix:], turns, half=attn.rotate_half)], 2)

    shared = attn.num_heads // getattr(attn, "num_kv_heads", attn.num_heads)  # heads to a key
    k = rotated(attn.k_norm(heads(F.linear(t, k_weight, k_bias), attn.num_heads // shared)), 0)
    k = k.repeat_interleave(shared, 1).type_as(t).transpose(2, 3)
    total = t.new_zeros(len(t), attn.num_heads, t.shape[1])
    for start in range(0, weights.shape[1], ROWS):
        part = weights[:, None, start : start + ROWS, None]  # (B, 1, rows, 1)
        own = t[:, first + start : first + start + part.shape[2]]
        q = attn.q_norm(heads(F.linear(own, q_weight, q_bias), attn.num_heads))
        q = rotated(q, first + start).type_as(t)
        total += (part * (q * attn.scale @ k).softmax(-1)).sum(2)  # rows of (B, heads, rows, N)
    return total


def _projections(attn: Any) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
    """Return weight and bias of the queries and of the keys."""
    if attn.qkv is None:
        return (attn.q_proj.weight, attn.q_proj.bias), (attn.k_proj.weight, attn.k_proj.bias)
    q_weight, k_weight, _ = attn.qkv.weight.chunk(3)
    if getattr(attn, "q_bias", None) is not None:  # EVA's, whose keys have none
        return (q_weight, attn.q_bias), (k_weight, attn.k_bias)
    q_bias, k_bias, _ = (None, None, None) if attn.qkv.bias is None else attn.qkv.bias.chunk(3)
    return (q_weight, q_bias), (k_weight, k_bias)


def _on_grid(features: Features, row: Tensor) -> Tensor:
    """Arrange the patches of rows over all tokens as they lie in the image: (B, maps, N) -> (B, maps, h, w)."""
    return row[:, :, features.prefix.shape[1] :].reshape(*row.shape[:2], *features.grid)
