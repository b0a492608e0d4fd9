"""A contact sheet of what the network is shown: some images and all of their views, at their true relative sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..data.loader import Batch
from .augment import Augment

_GAP = 8
_CAPTION = 16  # px of height
_NEAREST = Image.Resampling.NEAREST
_GROUND, _INK = (250, 250, 250), (60, 60, 60)


def contact_sheet(
    source_images: Sequence[NDArray[np.uint8]], augment: Augment, names: Sequence[str], epoch: int = 0
) -> Image.Image:
    """Draw a row an image, number 0, 1, … of a set: the image under its name, then its views in ``epoch``.

    ``source_images`` are uint8 (H, W, 3). Images are fitted into the size of the largest view; small views are shown
    enlarged, all by the same whole factor, so that they can be seen.
    """
    plan = augment.plan
    largest = max(view.size for view in plan.all)
    zoom = max(1, 96 // largest)
    rows = [
        [(name, _fitted(image, largest * zoom))]
        + [(c, tile.resize((tile.width * zoom, tile.height * zoom), _NEAREST)) for c, tile in tiles]
        for name, image, tiles in zip(names, source_images, view_tiles(source_images, augment, epoch), strict=True)
    ]
    return _laid_out(rows)


def view_tiles(
    images: Sequence[NDArray[np.uint8]], augment: Augment, epoch: int = 0
) -> list[list[tuple[str, Image.Image]]]:
    """Return each image's views in ``epoch``, captions and pictures at their true size."""
    plan = augment.plan
    kinds = [f"global {i + 1}" for i in range(len(plan.globals))] + [f"local {i + 1}" for i in range(len(plan.locals))]
    captions = [f"{kind}, {view.size} px" for kind, view in zip(kinds, plan.all, strict=True)]
    crops = [augment.geometric(image, epoch, i) for i, image in enumerate(images)]
    index = torch.arange(len(images))
    stacked = [torch.stack(view) for view in zip(*crops, strict=True)]
    batch = Batch(index, torch.full_like(index, epoch), stacked)
    views = augment(batch, torch.device("cpu")).all
    return [[(c, _shown(view[i], augment)) for c, view in zip(captions, views, strict=True)] for i in index.tolist()]


def _fitted(image: NDArray[np.uint8], side: int) -> Image.Image:
    height, width = image.shape[:2]
    factor = side / max(height, width)
    return Image.fromarray(image).resize((max(1, round(width * factor)), max(1, round(height * factor))))


def _shown(view: Tensor, augment: Augment) -> Image.Image:
    mean, std = (torch.tensor(v)[:, None, None] for v in (augment.plan.mean, augment.plan.std))
    pixels = ((view * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _laid_out(rows: list[list[tuple[str, Image.Image]]]) -> Image.Image:
    """Lay tiles out in columns as wide as their widest tile or caption, captions above."""
    font = ImageFont.load_default(11)
    rows = [[(_cut(text, tile.width, font), tile) for text, tile in row] for row in rows]
    columns = list(zip(*rows, strict=True))
    widths = [max(max(tile.width, int(font.getlength(text)) + 1) for text, tile in column) for column in columns]
    heights = [max(tile.height for _, tile in row) + _CAPTION for row in rows]
    size = (sum(widths) + _GAP * (len(widths) + 1), sum(heights) + _GAP * (len(heights) + 1))
    sheet = Image.new("RGB", size, _GROUND)
    pen = ImageDraw.Draw(sheet)
    y = _GAP
    for row, height in zip(rows, heights, strict=True):
        x = _GAP
        for (text, tile), width in zip(row, widths, strict=True):
            pen.text((x, y), text, fill=_INK, font=font)
            sheet.paste(tile, (x, y + _CAPTION))
            x += width + _GAP
        y += height + _GAP
    return sheet


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Shorten ``text`` from the left where it would run beyond its tile: the end of a path says more."""
    while len(text) > 16 and font.getlength(text) > width:
        text = "…" + text.removeprefix("…")[1:]
    return text
