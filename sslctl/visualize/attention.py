"""Where a ViT's [CLS] token looks: per-head attention maps of an image of any size, and masks of most of their mass."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..backbones import Backbone, attention
from ..views.geometric import resize


class AttentionMaps(NamedTuple):
    """Maps of one image, at the size at which the network saw it, without padding."""

    image: NDArray[np.uint8]  # (h, w, 3)
    heads: Tensor  # (heads, h, w), attention from [CLS] to the patch of each pixel
    masks: Tensor  # bool (heads, h, w)
    grid: tuple[int, int]  # rows and columns of patches


def attention_maps(
    backbone: Backbone,
    image: NDArray[np.uint8],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    size: int,
    block: int = -1,
    share: float = 0.6,
) -> AttentionMaps:
    """Attention of [CLS] in ``block`` over ``image`` (H, W, 3), and per head the mask of ``share`` of its mass.

    The image keeps its aspect: it is resized to about ``size`` x ``size`` pixels of area and padded at the right and
    the bottom, repeating its edge, to whole patches. Raises SpecError for a backbone without such maps or block.
    """
    shown = fit_area(image, size)
    height, width = shown.shape[1:]
    x = (shown / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    patch = max(1, backbone.patch)
    x = F.pad(x[None], (0, -width % patch, 0, -height % patch), mode="replicate")
    weight = next(backbone.parameters())
    with torch.no_grad():
        maps = attention(backbone, x.to(weight), block)[0].float().cpu()  # (heads, rows, columns)
    heads, masks = (upsample(m, patch)[:, :height, :width] for m in (maps, mass_mask(maps, share)))
    return AttentionMaps(shown.permute(1, 2, 0).numpy(), heads, masks, (maps.shape[1], maps.shape[2]))


def fit_area(image: NDArray[np.uint8], size: int) -> Tensor:
    """``image`` (H, W, 3) resized, its aspect kept, to the area of ``size`` x ``size``: uint8 (3, h, w).

    Equal areas mean equally many patches, so that memory does not depend on the image.
    """
    height, width = image.shape[:2]
    factor = size / math.sqrt(height * width)
    return resize(image, max(1, round(height * factor)), max(1, round(width * factor)), "bicubic")


def mass_mask(maps: Tensor, share: float) -> Tensor:
    """Per map the largest values that together hold ``share`` of its sum: (..., h, w) -> bool (..., h, w).

    As in facebookresearch/dino, visualize_attention.py: ascending values are summed up to 1 - share and dropped.
    """
    value, order = maps.flatten(-2).sort(-1)
    value = value / value.sum(-1, keepdim=True)
    keep = value.cumsum(-1) > 1 - share
    return torch.zeros_like(keep).scatter_(-1, order, keep).view(maps.shape)


def upsample(maps: Tensor, factor: int) -> Tensor:
    """Every value as a square of ``factor`` x ``factor`` pixels: (..., h, w) -> (..., h factor, w factor)."""
    return maps.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
