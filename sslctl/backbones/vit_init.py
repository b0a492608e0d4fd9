"""How MoCo v3 begins a ViT: fixed sine and cosine positions, its own initialisation, patches that stay as drawn."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SpecError


def sincos_positions(grid: tuple[int, int], dim: int) -> Tensor:
    """Position table of a ``grid`` of rows and columns, (1, 1 + rows * columns, dim); [CLS] comes first and is zero.

    As in facebookresearch/moco-v3, vits.py: rows in the first half of ``dim``. MAE's table has the halves swapped.
    """
    if dim % 4:
        raise SpecError(f"backbone: sine and cosine positions need a width that is a multiple of 4, not {dim}")
    omega = 10000.0 ** -(torch.arange(dim // 4) / (dim // 4))
    row, column = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
    angles = [axis.flatten()[:, None] * omega for axis in (row, column)]
    table = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], 1)
    return torch.cat([torch.zeros(1, dim), table])[None]


@torch.no_grad()
def begin_as_moco_v3(vit: Any, freeze_patches: bool) -> None:
    """Initialise a timm ViT in place as facebookresearch/moco-v3 does, from torch's global generator.

    Xavier's uniform for every Linear, with q, k and v as matrices of their own; zero biases; [CLS] of deviation 1e-6;
    positions fixed. ``freeze_patches`` leaves the patch projection as it is drawn.
    """
    for name, module in vit.named_modules():
        if isinstance(module, nn.Linear):
            rows = module.out_features / 3 if name.endswith("qkv") else module.out_features
            limit = math.sqrt(6 / (rows + module.in_features))
            module.weight.uniform_(-limit, limit)
            if module.bias is not None:
                module.bias.zero_()
    projection = vit.patch_embed.proj
    limit = math.sqrt(6 / (projection.weight[0].numel() + projection.out_channels))
    projection.weight.uniform_(-limit, limit)
    projection.bias.zero_()
    projection.requires_grad_(not freeze_patches)
    vit.cls_token.normal_(std=1e-6)
    vit.pos_embed.copy_(sincos_positions(vit.patch_embed.grid_size, vit.embed_dim))
    vit.pos_embed.requires_grad_(False)
