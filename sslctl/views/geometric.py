"""Where a crop lies in its image and how it is resized: per image from one decode, or a whole batch on its device."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Interpolation = Literal["bilinear", "bicubic"]

TRIES = 10
SLOTS = 2 * TRIES + 2  # of uniform numbers: area and aspect of every try, then top and left


def crop_boxes(
    u: NDArray[np.float64], height: int, width: int, scale: ArrayLike, ratio: ArrayLike = (3 / 4, 4 / 3)
) -> NDArray[np.int64]:
    """Return boxes (..., 4) as top, left, height, width in pixels, from uniforms ``u`` (..., SLOTS).

    torchvision's RandomResizedCrop: ten draws of an area (``scale``, share of the image) and of an aspect (``ratio``,
    log-uniform), the first that fits inside wins and lies anywhere; where none fits, the largest central box whose
    aspect is within ``ratio``. ``scale`` and ``ratio`` are (low, high), or (..., 2) for different views at once.
    """
    scale, ratio = np.asarray(scale, np.float64), np.asarray(ratio, np.float64)
    area = height * width * _between(scale, u[..., :TRIES])
    stretch = np.exp(0.5 * _between(np.log(ratio), u[..., TRIES : 2 * TRIES]))
    side = np.sqrt(area)
    w, h = np.rint(side * stretch), np.rint(side / stretch)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)

    first = fits.argmax(-1)[..., None]
    w, h = np.take_along_axis(w, first, -1)[..., 0], np.take_along_axis(h, first, -1)[..., 0]
    top = np.floor(u[..., -2] * (height - h + 1))
    left = np.floor(u[..., -1] * (width - w + 1))
    fitting = fits.any(-1)
    if not fitting.all():
        w = np.where(fitting, w, np.minimum(width, np.rint(height * ratio[..., 1])))
        h = np.where(fitting, h, np.minimum(height, np.rint(width / ratio[..., 0])))
        top = np.where(fitting, top, (height - h) // 2)
        left = np.where(fitting, left, (width - w) // 2)
    return np.stack([top, left, h, w], -1).astype(np.int64)


def _between(ends: NDArray[np.float64], u: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = ends[..., :1], ends[..., 1:]
    return low + (high - low) * u


def resize(image: NDArray[np.uint8], height: int, width: int, interpolation: Interpolation) -> Tensor:
    """Resize ``image`` (H, W, 3) to uint8 (3, height, width), antialiased as Pillow does it.

    Across first, then down, as in Pillow before 13 (which takes the steeper reduction first; where a cubic overshoots
    at a hard edge that is a few levels). Within one grey level of it, but for a pixel in 50 000. This is torch's uint8
    path, as torchvision uses it: three times as fast as Pillow on pixels that lie as a decoder leaves them. It works on
    a copy, since ``image`` may be a read-only view, and a dense block is resized faster.
    """
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    out = F.interpolate(pixels, (height, width), mode=interpolation, align_corners=False, antialias=True)
    return out[0].contiguous()


def crop(image: NDArray[np.uint8], box: NDArray[np.int64], size: int, interpolation: Interpolation) -> Tensor:
    """Resize the ``box`` (top, left, height, width) of ``image`` (H, W, 3) to uint8 (3, size, size)."""
    top, left, height, width = box.tolist()
    return resize(image[top : top + height, left : left + width], size, size, interpolation)


def crop_batch(images: Tensor, boxes: Tensor, flip: Tensor, size: int, interpolation: Interpolation) -> Tensor:
    """Resize the box of every image, mirrored where ``flip``; on any device.

    ``images`` uint8 (B, 3, H, W), ``boxes`` (B, 4), ``flip`` (B,) 0 or 1 -> float32 (B, 3, size, size) of whole grey
    levels. Two products with resize matrices, rounded and clamped after each as in ``resize``: equal to Pillow's and to
    ``crop``'s within one grey level, but for a pixel in 50 000.
    """
    top, left, height, width = boxes.float().unbind(1)
    down = resize_matrices(top, height, images.shape[2], size, interpolation)
    across = resize_matrices(left, width, images.shape[3], size, interpolation, flip)
    return resample(images, down, across)


def resample(images: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Resample ``images`` (B, 3, H, W) by matrices (B, h, H) and (B, w, W) to whole grey levels, float32."""
    b, c, height, width = images.shape
    rows = images.float().reshape(b, c * height, width)
    x = _grey_levels(torch.bmm(rows, across.transpose(1, 2)))  # (B, 3·H, w)
    return _grey_levels(torch.matmul(down[:, None], x.view(b, c, height, -1)))


def resize_matrices(
    start: Tensor, length: Tensor, source: int, size: int, interpolation: Interpolation, flip: Tensor | None = None
) -> Tensor:
    """Return (B, size, source): rows that average pixels from ``start`` on into ``size`` samples.

    Pillow's antialiased filters: a triangle, or Keys' cubic with a = -1/2, widened by the factor of reduction, cut at
    the box and normalised. Where ``flip`` is 1 the samples run backwards.
    """
    start, length = start[:, None, None], length[:, None, None]
    pixel = torch.arange(source, device=start.device, dtype=torch.float32) + 0.5
    sample = torch.arange(size, device=start.device, dtype=torch.float32)[:, None] + 0.5
    if flip is not None:
        backwards = flip.float()[:, None, None]
        sample = sample * (1 - 2 * backwards) + size * backwards
    step = length / size
    wide = step.clamp(min=1)
    distance = (pixel / wide - (start + sample * step) / wide).abs_()
    inside = (pixel > start) & (pixel < start + length)
    weight = _FILTERS[interpolation](distance).mul_(inside.float())
    return weight.div_(weight.sum(-1, keepdim=True))


def _triangle(d: Tensor) -> Tensor:
    return torch.rsub(d, 1).clamp_(min=0)


def _cubic(d: Tensor) -> Tensor:
    near = ((1.5 * d - 2.5) * d).mul_(d).add_(1)
    far = ((2.5 - 0.5 * d) * d).sub_(4).mul_(d).add_(2)
    return torch.where(d < 1, near, far).mul_(d < 2)


_FILTERS = {"bilinear": _triangle, "bicubic": _cubic}


def _grey_levels(x: Tensor) -> Tensor:
    return x.add_(0.5).floor_().clamp_(0, 255)
