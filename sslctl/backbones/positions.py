"""Absolute position embeddings of ViTs: fixed sines and cosines, and DINO's way of resizing a learned table."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SpecError


def sincos_positions(grid: tuple[int, int], dim: int, columns_first: bool = False) -> Tensor:
    """Return the position table of a ``grid`` of rows and columns, (1, 1 + rows * columns, dim); [CLS] first, zero.

    Rows fill the first half of ``dim`` and columns the second, as in facebookresearch/moco-v3, vits.py. With
    ``columns_first`` the halves are swapped, as in facebookresearch/mae, util/pos_embed.py.
    Raises SpecError for a width that is not a multiple of 4.
    """
    if dim % 4:
        raise SpecError(f"backbone: sine and cosine positions need a width that is a multiple of 4, not {dim}")
    dtype = torch.float64 if columns_first else torch.float32  # what each code computes in; MAE's then rounds
    omega = 10000.0 ** -(torch.arange(dim // 4, dtype=dtype) / (dim // 4))
    axes = torch.meshgrid(*map(torch.arange, grid), indexing="ij")  # row and column of each place
    angles = [axis.flatten()[:, None] * omega for axis in (reversed(axes) if columns_first else axes)]
    table = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], 1)
    return torch.cat([torch.zeros(1, dim), table.float()])[None]


def dino_positions(table: Tensor, native: tuple[int, int], grid: torch.Size | tuple[int, int]) -> Tensor:
    """Return positions for ``grid`` (rows, columns) from a ``table`` (1, 1 + rows * columns, D) of the native grid.

    ``interpolate_pos_encoding`` of facebookresearch/dino, vision_transformer.py: bicubic without antialiasing, by
    scale factors with 0.1 added to the target size.
    """
    if tuple(grid) == tuple(native):
        return table
    patches = table[:, 1:].reshape(1, *native, -1).permute(0, 3, 1, 2)  # (1, D, rows, columns)
    scale = [(new + 0.1) / old for new, old in zip(grid, native, strict=True)]
    patches = F.interpolate(patches, scale_factor=scale, mode="bicubic")
    return torch.cat([table[:, :1], patches.flatten(2).transpose(1, 2)], 1)
