"""What a ViT's output looks at: attention of one block, or rolled out through all; never a whole N x N matrix."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor

from ..errors import SpecError
from .backbone import VIT_EXAMPLE, Backbone, only_vit

ROWS = 128  # queries whose attention is held at a time


def attention(backbone: Backbone, x: Tensor, block: int = -1) -> Tensor:
    """How much the output attends to each patch in a block of a ViT: (B, 3, H, W) -> (B, heads, H / patch, W / patch).

    The output is [CLS]: that row of ``get_last_selfattention`` in facebookresearch/dino, where the softmax runs over
    every token, prefix included, so that a head's map sums to less than one. A net without [CLS] pools its patches: the
    mean of their rows. Raises SpecError for a backbone without such maps or block.
    """
    blocks = _blocks(backbone)
    if not -len(blocks) <= block < len(blocks):
        raise SpecError(
            f"--block {block}: the backbone has {len(blocks)}", f"0 to {len(blocks) - 1}, or -1 for the last"
        )
    t = backbone.embed(x)
    last = block % len(blocks)
    for earlier in blocks[:last]:
        t = earlier(t)
    first, weights = _output(backbone, t)
    return _grid(backbone, _attended(blocks[last], t, first, weights), x)


def rollout(backbone: Backbone, x: Tensor) -> Tensor:
    """How much of each patch reaches the output through all blocks: (B, 3, H, W) -> (B, 1, H / patch, W / patch).

    Attention rollout (Abnar & Zuidema 2020, section 4): the product over the blocks of the mean over heads, averaged
    with the identity for the residual connection. Only the output's row of that product is carried, from the last
    block to the first. Raises SpecError for a backbone without such maps.
    """
    t, tokens = backbone.embed(x), []
    for block in _blocks(backbone):
        tokens.append(t)
        t = block(t)
    first, weights = _output(backbone, t)
    row = t.new_zeros(t.shape[:2])
    row[:, first : first + weights.shape[1]] = weights
    for block, t in zip(reversed(_blocks(backbone)), reversed(tokens), strict=True):
        row = (row + _attended(block, t, 0, row).mean(1)) / 2  # (B, N)
    return _grid(backbone, row[:, None], x)


def _blocks(backbone: Backbone) -> Any:
    only_vit(backbone, "attention maps")
    blocks = backbone.net.blocks
    if not all(type(block) is Block and type(block.attn) is Attention for block in blocks):
        raise SpecError("attention maps need a ViT of plain blocks with plain attention", VIT_EXAMPLE)
    return blocks


def _output(backbone: Backbone, t: Tensor) -> tuple[int, Tensor]:
    """The first of the tokens that make the output, and how much each of them weighs in it: (B, n)."""
    prefix = int(backbone.net.num_prefix_tokens)
    if backbone.net.has_class_token:
        return 0, t.new_ones(len(t), 1)
    patches = t.shape[1] - prefix
    return prefix, t.new_full((len(t), patches), 1 / patches)


def _attended(block: Any, t: Tensor, first: int, weights: Tensor) -> Tensor:
    """Rows ``first`` and on of the block's attention over tokens ``t`` (B, N, D), summed by ``weights`` (B, n).

    -> (B, heads, N). A few rows are held at a time.
    """
    attn, t = block.attn, block.norm1(t)
    q_weight, k_weight, _ = attn.qkv.weight.chunk(3)
    q_bias, k_bias, _ = (None, None, None) if attn.qkv.bias is None else attn.qkv.bias.chunk(3)

    def heads(y: Tensor) -> Tensor:
        return y.reshape(*y.shape[:2], attn.num_heads, -1).transpose(1, 2)  # (B, heads, n, head width)

    k = attn.k_norm(heads(F.linear(t, k_weight, k_bias))).transpose(2, 3)
    total = t.new_zeros(len(t), attn.num_heads, t.shape[1])
    for start in range(0, weights.shape[1], ROWS):
        part = weights[:, None, start : start + ROWS, None]  # (B, 1, rows, 1)
        own = t[:, first + start : first + start + part.shape[2]]
        q = attn.q_norm(heads(F.linear(own, q_weight, q_bias)))
        total += (part * (q * attn.scale @ k).softmax(-1)).sum(2)  # rows of (B, heads, rows, N)
    return total


def _grid(backbone: Backbone, row: Tensor, x: Tensor) -> Tensor:
    """The patches of a row over all tokens, as they lie in the image: (B, maps, N) -> (B, maps, h, w)."""
    patches = row[:, :, backbone.net.num_prefix_tokens :]
    return patches.reshape(*row.shape[:2], x.shape[-2] // backbone.patch, -1)
