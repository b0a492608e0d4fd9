"""Arrays as pictures: colour maps, overlays, masks, and sheets of labelled tiles."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..files import write_atomically

Picture = NDArray[np.uint8]  # (h, w, 3)
GAP, CAPTION = 4, 14  # px


def colour(values: NDArray[np.floating], name: str = "inferno") -> Picture:
    """Paint ``values`` (h, w), from least to largest, in the colours of matplotlib's map ``name``."""
    low, high = float(values.min()), float(values.max())
    share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    rgba: NDArray[np.float64] = matplotlib.colormaps[name](share)
    return np.rint(255 * rgba[..., :3]).astype(np.uint8)


def mask_picture(keep: NDArray[np.bool_]) -> Picture:
    """Paint a mask (h, w): white where it is true."""
    return np.repeat(255 * keep[..., None].astype(np.uint8), 3, 2)


def blend(image: Picture, over: Picture, weight: float = 0.6) -> Picture:
    """Mix two pictures, ``over`` with ``weight``."""
    return np.rint((1 - weight) * image + weight * over).astype(np.uint8)


def darken_outside(image: Picture, keep: NDArray[np.bool_], light: float = 0.25) -> Picture:
    """Darken ``image`` outside the mask ``keep`` (h, w)."""
    return np.where(keep[..., None], image, (light * image).astype(np.uint8))


def fit_square(picture: Picture, side: int, ground: int = 255) -> Picture:
    """Resize ``picture`` into a square of ``side`` px, keeping its aspect, on the grey level ``ground``."""
    inside = Image.fromarray(picture)
    factor = side / max(inside.size)
    width, height = (max(1, round(factor * length)) for length in inside.size)
    resample = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    page = Image.new("RGB", (side, side), (ground,) * 3)
    page.paste(inside.resize((width, height), resample), ((side - width) // 2, (side - height) // 2))
    return np.array(page)


def add_frame(picture: Picture, rgb: tuple[int, int, int], width: int = 2) -> Picture:
    """Paint the outermost ``width`` px of ``picture`` in a colour."""
    result = np.full_like(picture, rgb)
    result[width:-width, width:-width] = picture[width:-width, width:-width]
    return result


def tile_sheet(tiles: Sequence[tuple[str, Picture]], columns: int) -> Picture:
    """Arrange pictures of equal size in rows, each with its caption, on white."""
    height, width = tiles[0][1].shape[:2]
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    page = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + GAP + CAPTION) + GAP), "white")
    draw = ImageDraw.Draw(page)
    for i, (caption, tile) in enumerate(tiles):
        left, top = GAP + i % columns * (width + GAP), GAP + i // columns * (height + GAP + CAPTION)
        draw.text((left, top), caption, fill="black")
        page.paste(Image.fromarray(tile), (left, top + CAPTION))
    return np.asarray(page)


def save_png(picture: Picture, path: Path) -> Path:
    """Save ``picture`` as a PNG. Raises MachineError if the disk refuses."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
    return path
