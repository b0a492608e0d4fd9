"""Attention and saliency maps of an image of any size, and masks of most of their mass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...backbones import Backbone, activation, attention, own_grad_cam, rollout
from ...errors import SpecError
from ...views.geometric import resize

MAP_KINDS = ("attention", "rollout", "grad-cam", "activation")


@dataclass(frozen=True)
class MapOptions:
    """Options of maps: their kind, the image size, the block, and the share of mass that a mask keeps."""

    kind: str  # one of MAP_KINDS
    size: int  # px; images are resized to the area of size x size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    block: int = -1
    share: float = 0.6


@dataclass(frozen=True)
class AttentionMaps:
    """The maps of an image: one for each head, or a single one."""

    image: NDArray[np.uint8]  # (h, w, 3), as the network saw it, without padding
    raw: Tensor  # float32 (maps, rows, columns): one number for each patch, padding included
    stride: int  # px of the image for one row or column
    share: float

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of patches."""
        return self.raw.shape[1], self.raw.shape[2]

    @property
    def heads(self) -> Tensor:
        """Return the maps at the size of the image: float32 (maps, h, w)."""
        return self.to_pixels(self.raw)

    @property
    def mean(self) -> Tensor:
        """Return the mean over maps at the size of the image: float32 (h, w)."""
        return self.to_pixels(self.raw.mean(0))

    @property
    def masks(self) -> Tensor:
        """Return for each map the pixels of the patches with ``share`` of its mass: bool (maps, h, w)."""
        return self.to_pixels(mass_mask(self.raw, self.share))

    @property
    def union(self) -> Tensor:
        """Return the pixels in any map's mask: bool (h, w)."""
        return self.masks.any(0)

    def to_pixels(self, values: Tensor) -> Tensor:
        """Expand values of patches (..., rows, columns) to pixels (..., h, w)."""
        height, width = self.image.shape[:2]
        return upsample(values, self.stride)[..., :height, :width]


def choose_kind(backbone: Backbone, kind: str) -> str:
    """Return ``kind``, for ``auto`` the usual one of the backbone. Raises SpecError for an unknown kind."""
    if kind == "auto":
        return "attention" if backbone.is_vit else "grad-cam"
    if kind not in MAP_KINDS:
        raise SpecError(f"--kind '{kind}': unknown kind of map", f"auto, {', '.join(MAP_KINDS)}")
    return kind


def attention_maps(backbone: Backbone, image: NDArray[np.uint8], options: MapOptions) -> AttentionMaps:
    """Compute the maps of ``image`` (H, W, 3).

    It is resized, keeping its aspect, to an area of about ``options.size`` squared and padded to whole patches by
    repeating its right and bottom edge. Raises SpecError for a backbone without such maps or block.
    """
    resized = fit_area(image, options.size)
    x = network_input(backbone, resized, options.mean, options.std)
    with torch.no_grad():
        maps = raw_maps(backbone, x, options)[0].float().cpu()
    return AttentionMaps(resized.permute(1, 2, 0).numpy(), maps, backbone.stride, options.share)


def raw_maps(backbone: Backbone, x: Tensor, options: MapOptions) -> Tensor:
    """Compute maps of inputs (B, 3, H, W), sides multiples of the stride: (B, maps, H / stride, W / stride)."""
    if options.kind == "attention":
        return attention(backbone, x, options.block)
    if options.block != -1:
        raise SpecError(f"--block {options.block}: --kind {options.kind} is not computed for a block", "omit --block")
    return {"rollout": rollout, "grad-cam": own_grad_cam, "activation": activation}[options.kind](backbone, x)


def network_input(backbone: Backbone, image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Normalise an image, uint8 (3, h, w), and pad it by its edge to multiples of the stride.

    Returns (1, 3, H, W) on the backbone's device and in its type.
    """
    height, width = image.shape[1:]
    side = backbone.stride
    x = (image / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    x = F.pad(x[None], (0, -width % side, 0, -height % side), mode="replicate")
    return x.to(next(backbone.parameters()))


def fit_area(image: NDArray[np.uint8], size: int) -> Tensor:
    """Resize ``image`` (H, W, 3), keeping its aspect, to the area of ``size`` x ``size``: uint8 (3, h, w).

    Equal areas have equally many patches, so memory does not depend on the image.
    """
    height, width = image.shape[:2]
    factor = size / math.sqrt(height * width)
    return resize(image, max(1, round(height * factor)), max(1, round(width * factor)), "bicubic")


def mass_mask(maps: Tensor, share: float) -> Tensor:
    """Select in each map the largest values that sum to ``share`` of it: (..., h, w) -> bool (..., h, w).

    As in facebookresearch/dino, visualize_attention.py: ascending values are summed up to 1 - share and dropped.
    """
    value, order = maps.flatten(-2).sort(-1)
    value = value / value.sum(-1, keepdim=True)
    keep = value.cumsum(-1) > 1 - share
    return torch.zeros_like(keep).scatter_(-1, order, keep).view(maps.shape)


def upsample(maps: Tensor, factor: int) -> Tensor:
    """Repeat every value as a square of ``factor`` x ``factor`` pixels: (..., h, w) -> (..., h factor, w factor)."""
    return maps.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
