"""Images as evaluation sees them: resized, cut at the centre, normalised; nothing random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .geometric import resample, resize_matrices

SMALL = 64  # px below which nothing is cut off: small pictures are of their subject alone


class EvalTransform:
    """Resizing to ``size / crop`` px (antialiased bicubic), a central crop, and normalisation.

    Below 64 px ``crop`` is taken as 1, so that square images are only resized. The sides are rounded as torchvision's
    Resize and CenterCrop round them.
    """

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float], crop: float = 0.875) -> None:
        self.size = size
        self.mean, self.std = tuple(mean), tuple(std)
        self.short = size if size < SMALL else int(size / crop)

    def __call__(self, image: NDArray[np.uint8]) -> Tensor:
        """Return ``image`` (H, W, 3) as float32 (3, size, size)."""
        return self.normalise(self.crop(image)[None])[0]

    def crop(self, image: NDArray[np.uint8]) -> Tensor:
        """Resize and cut ``image`` (H, W, 3) to uint8 (3, size, size): ``normalise`` is left to do."""
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)  # a copy, since image may be a read-only view
        return self._cut(pixels[None])[0]

    def batch(self, images: Tensor) -> Tensor:
        """Return ``images`` uint8 (B, 3, H, W) on any device as float32 (B, 3, size, size).

        On a CPU the same bits as image by image; elsewhere within one grey level before the normalisation.
        """
        return self.normalise(self._cut(images))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return ``pixels`` (..., 3, H, W) in 0 … 255 as float32 (x / 255 - mean) / std."""
        mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] * 255 for v in (self.mean, self.std))
        x = pixels.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        return x.sub_(mean).div_(std)

    def _cut(self, images: Tensor) -> Tensor:
        height, width = self._resized(*images.shape[2:])
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return _resize(images, height, width)[:, :, top : top + self.size, left : left + self.size]

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        long = int(self.short * max(height, width) / min(height, width))
        return (self.short, long) if height <= width else (long, self.short)


def _resize(images: Tensor, height: int, width: int) -> Tensor:
    if images.shape[2:] == (height, width):
        return images
    if images.device.type == "cpu":  # torch's uint8 path exists there alone
        return F.interpolate(images, (height, width), mode="bicubic", align_corners=False, antialias=True)
    return resize_by_matrices(images, height, width)


def resize_by_matrices(images: Tensor, height: int, width: int) -> Tensor:
    """Return ``images`` (B, C, H, W) resized by antialiased bicubic, as products with two matrices; on any device."""
    start, ends = torch.zeros(1, device=images.device), torch.tensor(images.shape[2:], device=images.device)
    down = resize_matrices(start, ends[:1], images.shape[2], height, "bicubic")
    across = resize_matrices(start, ends[1:], images.shape[3], width, "bicubic")
    return resample(images, down.expand(len(images), -1, -1), across.expand(len(images), -1, -1))
