"""Images as levels of 0 to 255, and what Pillow makes of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Levels = NDArray[np.uint8]


def levels(images: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous()


def by_pillow(images: Levels, change: Callable[[Image.Image, int], Image.Image]) -> Tensor:
    return levels(np.stack([np.asarray(change(Image.fromarray(x), i)) for i, x in enumerate(images)]))


def numbers(low: float, high: float, n: int) -> NDArray[np.float32]:
    return np.linspace(low, high, n).astype(np.float32)
