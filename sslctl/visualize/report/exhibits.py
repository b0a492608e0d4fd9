"""The pictures of a report: views, maps over time, nearest neighbours, each in the page itself, of bounded number."""

from __future__ import annotations

import base64
import io
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...data import open_pair
from ...data.decode import BadImage, Pixels
from ...data.source import Source, printable
from ...methods import load_method
from ...runs.encoder import LoadedEncoder
from ...spec.schema import Spec
from ...views.augment import Augment
from ...views.evaluation import EvalTransform
from ...views.preview import view_tiles
from ...views.recipe import plan_views
from ..maps.over_time import IMAGES, Glimpse, shown, spaced
from ..paint import blend, colour

GALLERY = 400  # images, at most, among which neighbours are looked for
NEAREST = 6
SAMPLES = 3  # images whose views are shown
BATCH = 32
SMALL = 64  # px, up to which a picture is shown with its pixels as they are
SIDE = 88  # px of a picture in the page


class Picture(NamedTuple):
    """``uri`` holds the picture itself; ``side`` is its width in the page, px."""

    uri: str
    caption: str
    side: int
    crisp: bool
    good: bool | None = None  # a neighbour: whether it has the class of what it is near to


@dataclass
class Exhibits:
    """What can be shown of a run; each part is empty where ``missing`` says why."""

    views: list[list[Picture]] = field(default_factory=list)
    glimpses: list[list[Picture]] = field(default_factory=list)
    neighbours: list[list[Picture]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    looked_at: int = 0  # images, to find neighbours
    agreement: float | None = None  # share of neighbours with the class of the image they are near to


def open_images(spec: Spec) -> Source:
    """The run's training images, nothing held in memory that need not be."""
    data = spec.data.model_copy(update={"in_memory": False})
    return open_pair(data, spec.run.seed, labelled=False)[0]


def sample_views(spec: Spec, source: Source) -> list[list[Picture]]:
    """Views of the first images that are shown elsewhere too, drawn as in the run's first epoch."""
    augment = Augment(plan_views(load_method(spec.method.name).views, spec.views), spec.run.seed)
    images = [image for _, image in readable(source, spaced(source, SAMPLES), seconds=10)]
    rows = view_tiles(images, augment)
    largest = max(tile.width for _, tile in rows[0])
    return [
        [
            picture(image, "the image"),
            *(picture(tile, f"{tile.width} px", max(0.4, tile.width / largest)) for _, tile in tiles),
        ]
        for image, tiles in zip(images, rows, strict=True)
    ]


def paint_glimpses(glimpse: Glimpse) -> list[list[Picture]]:
    """Per image itself, then the map of every step laid over it."""
    rows = []
    for i, name in enumerate(glimpse.names):
        image = glimpse.images[i].permute(1, 2, 0).numpy()
        row = [picture(image, PurePath(name).name)]
        for step, maps in glimpse.maps.items():
            heat = Image.fromarray(colour(maps[i].numpy())).resize(image.shape[1::-1], Image.Resampling.BILINEAR)
            row.append(picture(blend(image, np.asarray(heat), 0.55), f"step {step}"))
        rows.append(row)
    return rows


def find_neighbours(encoder: LoadedEncoder, source: Source, device: torch.device, seconds: float) -> Exhibits:
    """The nearest of at most ``GALLERY`` images to each of the fixed ones, by cosine of features.

    Images are read and encoded for ``seconds`` at most, in an order of their own, so that what is cut off is not the
    end of the set.
    """
    net, transform = encoder.backbone.to(device), transform_of(encoder)
    own = spaced(source, IMAGES)
    rest = [i for i in np.random.default_rng(0).permutation(len(source))[: GALLERY + IMAGES].tolist() if i not in own]
    index: list[int] = []
    thumbnails: list[Tensor] = []
    features: list[Tensor] = []
    images = readable(source, [*own, *rest[:GALLERY]], seconds)
    while part := list(itertools.islice(images, BATCH)):
        pixels = torch.stack([transform.crop(image) for _, image in part])
        index += [i for i, _ in part]
        thumbnails += list(shown(pixels))
        with torch.no_grad():
            features.append(net(transform.normalise(pixels.to(device))).pooled.float().cpu())
    found = Exhibits(looked_at=len(index))
    if len(index) < 2:
        found.missing["neighbours"] = "there are no two images that can be read"
        return found
    _arrange(found, source, index, thumbnails, torch.cat(features), sum(i in own for i in index))
    return found


def _arrange(
    found: Exhibits, source: Source, index: list[int], thumbnails: list[Tensor], x: Tensor, queries: int
) -> None:
    """Rows of the first ``queries`` images of ``index`` and their nearest others, by features ``x`` (n, d)."""
    agree: list[bool] = []
    x = F.normalize(x, dim=1)
    similarity, nearest = (x[:queries] @ x.T).topk(min(NEAREST + 1, len(index)), 1)
    for q in range(queries):
        mine = label(source, index[q])
        row = [picture(thumbnails[q], mine or PurePath(source.item_name(index[q])).name)]
        for cosine, j in zip(similarity[q].tolist(), nearest[q].tolist(), strict=True):
            if j != q and len(row) <= NEAREST:
                other = label(source, index[j])
                same = None if mine is None else other == mine
                agree += [] if same is None else [same]
                row.append(picture(thumbnails[j], f"{cosine:.2f}" + (f" · {other}" if other else ""), good=same))
        found.neighbours.append(row)
    found.agreement = sum(agree) / len(agree) if agree else None


def readable(source: Source, wanted: list[int], seconds: float) -> Iterator[tuple[int, Pixels]]:
    """Position and pixels of the ``wanted`` images that can be read, until ``seconds`` are over."""
    end = time.monotonic() + seconds
    for i in wanted:
        try:
            yield i, source.read(i)
        except BadImage:
            continue
        if time.monotonic() > end:
            return


def transform_of(encoder: LoadedEncoder) -> EvalTransform:
    image = encoder.meta.image
    return image.transform()


def label(source: Source, i: int) -> str | None:
    """The class of image ``i``, where the set has classes."""
    return None if source.labels is None else printable(source.classes[source.labels[i]])


def picture(
    pixels: Tensor | Pixels | Image.Image, caption: str, scale: float = 1.0, good: bool | None = None
) -> Picture:
    """Pixels, uint8 (3, H, W) or (H, W, 3), as part of a page, ``scale`` times ``SIDE`` px wide.

    Small ones keep their pixels and are enlarged; large ones are shrunk to twice the size that is shown, as JPEG.
    """
    array = pixels.permute(1, 2, 0).numpy() if isinstance(pixels, Tensor) else pixels
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    small = max(image.size) <= SMALL
    buffer = io.BytesIO()
    if small:
        image.save(buffer, "PNG")
    else:
        image = image.copy()
        image.thumbnail((2 * SIDE, 2 * SIDE))
        image.save(buffer, "JPEG", quality=82)
    uri = f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(uri, caption, round(SIDE * scale), small, good)
