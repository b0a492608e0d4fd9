"""The pictures of a report, embedded in its page: views, maps over time, nearest neighbours."""

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
from PIL import Image
from torch import Tensor

from ...data import open_pair
from ...data.decode import BadImage, Pixels
from ...data.source import Source, printable
from ...evaluate.features.extract import FeatureSet
from ...methods import load_method
from ...runs.encoder import LoadedEncoder
from ...spec.schema import Spec
from ...views.augment import Augment
from ...views.preview import view_tiles
from ...views.recipe import plan_views
from ..maps.over_time import IMAGES, MapHistory, evenly_spaced, shrink
from ..neighbour_sheet import class_agreement, nearest, neighbour_entries
from ..paint import blend, colour

GALLERY = 400  # images, at most, among which neighbours are searched
NEAREST = 6
SAMPLES = 3  # images shown with their views
BATCH = 32
SMALL = 64  # px, up to which a picture is shown pixel by pixel
SIDE = 88  # px of a picture in the page


class Picture(NamedTuple):
    """A picture as a data ``uri``; ``side`` is its width in the page, px."""

    uri: str
    caption: str
    side: int
    crisp: bool
    good: bool | None = None  # a neighbour: whether it has the class of its query


@dataclass
class Exhibits:
    """The pictures of a run; ``missing`` gives the reason for each absent part."""

    views: list[list[Picture]] = field(default_factory=list)
    maps: list[list[Picture]] = field(default_factory=list)
    neighbours: list[list[Picture]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    searched: int = 0  # images among which neighbours were searched
    agreement: float | None = None  # share of neighbours with the class of their query


def open_images(spec: Spec) -> Source:
    """Open the run's training images without loading them into memory."""
    data = spec.data.model_copy(update={"in_memory": False})
    return open_pair(data, spec.run.seed, labelled=False)[0]


def sample_views(spec: Spec, source: Source) -> list[list[Picture]]:
    """Return views of some images, sampled as in the run's first epoch."""
    augment = Augment(plan_views(load_method(spec.method.name).views, spec.views), spec.run.seed)
    images = [image for _, image in read_within(source, evenly_spaced(source, SAMPLES), seconds=10)]
    rows = view_tiles(images, augment)
    largest = max(tile.width for _, tile in rows[0])
    return [
        [
            picture(image, "image"),
            *(picture(tile, f"{tile.width} px", max(0.4, tile.width / largest)) for _, tile in tiles),
        ]
        for image, tiles in zip(images, rows, strict=True)
    ]


def paint_history(history: MapHistory) -> list[list[Picture]]:
    """Return for each image itself and an overlay of its map at every step."""
    rows = []
    for i, name in enumerate(history.names):
        image = history.images[i].permute(1, 2, 0).numpy()
        row = [picture(image, PurePath(name).name)]
        for step, maps in history.maps.items():
            heat = Image.fromarray(colour(maps[i].numpy())).resize(image.shape[1::-1], Image.Resampling.BILINEAR)
            row.append(picture(blend(image, np.asarray(heat), 0.55), f"step {step}"))
        rows.append(row)
    return rows


def find_neighbours(encoder: LoadedEncoder, source: Source, device: torch.device, seconds: float) -> Exhibits:
    """Find the nearest by cosine of at most ``GALLERY`` images to some fixed ones.

    Images are read and encoded in random order for at most ``seconds``, so the gallery covers the whole set.
    """
    net, transform = encoder.backbone.to(device), encoder.transform()
    fixed = evenly_spaced(source, IMAGES)
    others = [
        i for i in np.random.default_rng(0).permutation(len(source))[: GALLERY + IMAGES].tolist() if i not in fixed
    ]
    index: list[int] = []
    thumbnails: list[Tensor] = []
    parts: list[Tensor] = []
    images = read_within(source, [*fixed, *others[:GALLERY]], seconds)
    while batch := list(itertools.islice(images, BATCH)):
        pixels = torch.stack([transform.crop(image) for _, image in batch])
        index += [i for i, _ in batch]
        thumbnails += list(shrink(pixels))
        with torch.no_grad():
            parts.append(net(transform.normalise(pixels.to(device))).pooled.float().cpu())
    result = Exhibits(searched=len(index))
    if len(index) < 2:
        result.missing["neighbours"] = "fewer than two images can be read"
        return result
    positions = torch.tensor(index)
    labels = torch.full((len(index),), -1) if source.labels is None else torch.from_numpy(source.labels)[positions]
    features = FeatureSet(torch.cat(parts), labels, positions, source.classes, [], source.name, "")
    neighbours = nearest(features, features, list(range(sum(i in fixed for i in index))), NEAREST)
    entries = neighbour_entries(neighbours, features, features, (source, source))
    result.agreement = class_agreement(entries)
    for entry, query, rows in zip(entries, neighbours.queries, neighbours.rows, strict=True):
        label = entry.get("class")
        name = PurePath(entry["image"]).name if label is None else printable(label)
        strip = [picture(thumbnails[query], name)]
        for other, row in zip(entry["neighbours"], rows, strict=True):
            caption = f"{other['similarity']:.2f}" + (f" · {printable(other['class'])}" if "class" in other else "")
            same = None if label is None else other["class"] == label
            strip.append(picture(thumbnails[row], caption, good=same))
        result.neighbours.append(strip)
    return result


def read_within(source: Source, positions: list[int], seconds: float) -> Iterator[tuple[int, Pixels]]:
    """Yield position and pixels of the readable images at ``positions`` until ``seconds`` have passed."""
    end = time.monotonic() + seconds
    for i in positions:
        try:
            yield i, source.read(i)
        except BadImage:
            continue
        if time.monotonic() > end:
            return


def picture(
    pixels: Tensor | Pixels | Image.Image, caption: str, scale: float = 1.0, good: bool | None = None
) -> Picture:
    """Embed pixels, uint8 (3, H, W) or (H, W, 3), as a picture ``scale`` times ``SIDE`` px wide.

    Small pictures stay pixel by pixel, as PNG; large ones are shrunk to twice the displayed size, as JPEG.
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
