"""The share of its own norm that a tensor moves, which LARC gives to training and to linear heads alike."""

from __future__ import annotations

import torch
from torch import Tensor


def larc(weight_norm: Tensor, gradient_norm: Tensor, decay: float, trust: float = 0.001) -> tuple[Tensor, Tensor]:
    """Return (scale, decay): a tensor's update is scale * (gradient + decay * weight).

    All have the shape of the norms. Where either norm is 0, the scale is 1 and the decay 0: the tensor is neither
    decayed nor adapted (NVIDIA/apex, apex/parallel/LARC.py, ``clip=False``).
    """
    moves = (weight_norm > 0) & (gradient_norm > 0)
    scale = trust * weight_norm / (gradient_norm + decay * weight_norm + 1e-8)
    return torch.where(moves, scale, 1.0), moves.to(weight_norm.dtype) * decay
