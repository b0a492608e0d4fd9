"""Where a network looks: maps of an image of any size, and masks of most of their mass."""

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

KINDS = ("attention", "rollout", "grad-cam", "activation")


@dataclass(frozen=True)
class Look:
    """How maps are made: of what kind, at which size, from which block, and how much of their mass a mask keeps."""

    kind: str  # one of KINDS
    size: int  # px; images are resized to the area of size x size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    block: int = -1
    share: float = 0.6


@dataclass(frozen=True)
class AttentionMaps:
    """Maps of one image: one for each head, or a single one."""

    image: NDArray[np.uint8]  # (h, w, 3), as the network saw it, without padding
    raw: Tensor  # float32 (maps, rows, columns): one number for each patch, padding included
    stride: int  # px of the image for one row or column
    share: float

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.raw.shape[1], self.raw.shape[2]

    @property
    def heads(self) -> Tensor:
        """The maps at the size of the image: float32 (maps, h, w)."""
        return self.spread(self.raw)

    @property
    def mean(self) -> Tensor:
        """Mean over the maps at the size of the image: float32 (h, w)."""
        return self.spread(self.raw.mean(0))

    @property
    def masks(self) -> Tensor:
        """Per map the pixels of the patches that hold ``share`` of its mass: bool (maps, h, w)."""
        return self.spread(mass_mask(self.raw, self.share))

    @property
    def union(self) -> Tensor:
        """Pixels in the mask of any map: bool (h, w)."""
        return self.masks.any(0)

    def spread(self, values: Tensor) -> Tensor:
        """Values of patches (..., rows, columns) as values of pixels (..., h, w)."""
        height, width = self.image.shape[:2]
        return upsample(values, self.stride)[..., :height, :width]


def choose_kind(backbone: Backbone, kind: str) -> str:
    """``kind`` itself, or for ``auto`` what suits the backbone. Raises SpecError for an unknown word."""
    if kind == "auto":
        return "attention" if backbone.is_vit else "grad-cam"
    if kind not in KINDS:
        raise SpecError(f"--kind '{kind}': no such maps", f"auto, {', '.join(KINDS)}")
    return kind


def attention_maps(backbone: Backbone, image: NDArray[np.uint8], look: Look) -> AttentionMaps:
    """Maps of ``image`` (H, W, 3).

    The image keeps its aspect: it is resized to about ``look.size`` x ``look.size`` pixels of area and padded at the
    right and the bottom, repeating its edge, to whole patches. Raises SpecError for a backbone without such maps or
    block.
    """
    shown = fit_area(image, look.size)
    x = network_input(backbone, shown, look.mean, look.std)
    with torch.no_grad():
        maps = raw_maps(backbone, x, look)[0].float().cpu()
    return AttentionMaps(shown.permute(1, 2, 0).numpy(), maps, backbone.stride, look.share)


def raw_maps(backbone: Backbone, x: Tensor, look: Look) -> Tensor:
    """Maps of network inputs (B, 3, H, W), both sides multiples of the stride: (B, maps, H / stride, W / stride)."""
    if look.kind == "attention":
        return attention(backbone, x, look.block)
    if look.block != -1:
        raise SpecError(f"--block {look.block}: --kind {look.kind} is not that of a block", "leave --block out")
    return {"rollout": rollout, "grad-cam": own_grad_cam, "activation": activation}[look.kind](backbone, x)


def network_input(backbone: Backbone, shown: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """An image uint8 (3, h, w) as the network takes it: normalised, its edge repeated to multiples of the stride.

    -> (1, 3, H, W) on the backbone's device and in its type.
    """
    height, width = shown.shape[1:]
    side = backbone.stride
    x = (shown / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    x = F.pad(x[None], (0, -width % side, 0, -height % side), mode="replicate")
    return x.to(next(backbone.parameters()))


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
