"""Attention of a ViT: how much [CLS] looks at each patch."""

from __future__ import annotations

import torch.nn.functional as F
from timm.layers import Attention
from torch import Tensor

from ..errors import SpecError
from .encoder import VIT_EXAMPLE, Backbone, only_vit


def attention(backbone: Backbone, x: Tensor, block: int = -1) -> Tensor:
    """How much [CLS] attends to each patch in a block of a ViT: (B, 3, H, W) -> (B, heads, H / patch, W / patch).

    The row of ``get_last_selfattention`` in facebookresearch/dino: the softmax runs over every token, prefix included,
    so a head's map sums to less than one. Only that row is computed, never the N x N matrix.
    Raises SpecError for a backbone without such maps or block.
    """
    only_vit(backbone, "attention maps")
    net, blocks = backbone.net, backbone.net.blocks
    if not -len(blocks) <= block < len(blocks):
        raise SpecError(
            f"--block {block}: the backbone has {len(blocks)}", f"0 to {len(blocks) - 1}, or -1 for the last"
        )
    if not net.has_class_token or type(getattr(blocks[block], "attn", None)) is not Attention:
        raise SpecError("attention maps need a ViT with a class token and plain attention", VIT_EXAMPLE)
    t = backbone.embed(x)
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
