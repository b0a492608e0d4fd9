"""How MoCo v3 and MAE initialise a ViT: fixed sine and cosine positions, and their own random weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .backbone import Backbone


@torch.no_grad()
def begin_as_moco_v3(backbone: Backbone, freeze_patches: bool) -> None:
    """Initialise a ViT in place as facebookresearch/moco-v3, vits.py, does, from torch's global generator.

    Xavier's uniform for every Linear, with q, k and v as matrices of their own; zero biases; [CLS] of deviation 1e-6;
    positions fixed. ``freeze_patches`` leaves the patch projection as it is drawn.
    """
    vit = backbone.net
    for name, module in vit.named_modules():
        if isinstance(module, nn.Linear):
            _xavier(module.weight, module.out_features / 3 if name.endswith("qkv") else module.out_features)
            if module.bias is not None:
                module.bias.zero_()
    projection = vit.patch_embed.proj
    _xavier(projection.weight, projection.out_channels)
    projection.bias.zero_()
    projection.requires_grad_(not freeze_patches)
    if vit.cls_token is not None:
        vit.cls_token.normal_(std=1e-6)
    backbone.fix_positions()


@torch.no_grad()
def begin_as_mae(backbone: Backbone) -> None:
    """Initialise a ViT in place as facebookresearch/mae, models_mae.py, does, from torch's global generator.

    Xavier's uniform for every Linear (q, k and v as one matrix) and for the patch projection, whose bias stays; zero
    biases elsewhere; [CLS] of deviation 0.02; positions fixed, columns first.
    """
    vit = backbone.net
    for module in vit.modules():
        if isinstance(module, nn.Linear):
            _xavier(module.weight, module.out_features)
            if module.bias is not None:
                module.bias.zero_()
    _xavier(vit.patch_embed.proj.weight, vit.patch_embed.proj.out_channels)
    if vit.cls_token is not None:
        vit.cls_token.normal_(std=0.02)
    backbone.fix_positions(columns_first=True)


def _xavier(weight: Tensor, rows: float) -> None:
    """Draw ``weight`` uniformly within Glorot and Bengio's limit for a matrix of ``rows`` outputs."""
    limit = math.sqrt(6 / (rows + weight[0].numel()))
    weight.uniform_(-limit, limit)
