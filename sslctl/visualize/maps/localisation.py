"""Whether maps find the objects: Jaccard of their masks, CorLoc of the largest part's box, pointing game."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...data.decode import BadImage
from ...data.source import Source
from ...errors import DataError
from ...evaluate.score import Z95, wilson
from .attention import AttentionMaps, Look, fit_area, mass_mask
from .true_masks import Truth

Eyes = Callable[[NDArray[np.uint8]], Mapping[str, AttentionMaps]]  # maps of an image, by who looks
Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two outside

CENTRE = 0.3  # standard deviation of the centre prior, in sides of the image; of 0.2, 0.25, 0.3, 0.5 the best on stamps
MEASURES = ("jaccard", "corloc", "pointing")
BEST = "best head"


@dataclass(frozen=True)
class Row:
    """A map's score over images: share and 95 % interval by measure; only the measures that it has."""

    name: str
    values: Mapping[str, tuple[float, float, float]]

    def as_dict(self) -> dict[str, Any]:
        found = {key: {"value": v, "interval": [low, high]} for key, (v, low, high) in self.values.items()}
        return {"map": self.name, **found}


Found = dict[str, dict[str, list[float]]]  # map -> measure -> a number for each image


def localise(
    source: Source,
    truth: Truth,
    eyes: Eyes,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Found], list[dict[str, str]]]:
    """What each of ``eyes`` scores on every image that has a mask, and the images or masks that cannot be read.

    One image in memory at a time, decoded once. Raises DataError where nothing could be scored.
    """
    found: dict[str, Found] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    failed: list[dict[str, str]] = []
    pairs = truth.pairs(source)
    for done, (i, path) in enumerate(pairs, 1):
        try:
            image, objects = source.read(i), truth.read(path)
        except BadImage as e:
            failed.append({"image": source.item_name(i), "reason": e.reason})
            continue
        for name, maps in eyes(image).items():
            for row, values in judge(maps, objects).items():
                for key, value in values.items():
                    found[name][row][key].append(value)
        progress(done, len(pairs))
    if len(failed) == len(pairs):
        raise DataError(f"{source.name}: none of its {len(pairs)} images and masks can be read: {failed[0]['reason']}")
    return found, failed


def judge(maps: AttentionMaps, objects: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    """One image's numbers: each map, their mean, union, and the best of the maps; ``objects`` is (objects, H, W).

    ``jaccard``: intersection over union, mean over the objects; ``best head`` takes for every object the map that fits
    it best (DINO's figure for VOC12, as told in issue 54 of facebookresearch/dino). ``corloc``: whether the box around
    the largest part of the mask overlaps an object's box by more than half (Deselaers et al. 2010). ``pointing``:
    whether the middle of the largest patch lies on an object (Zhang et al. 2016, without tolerance).
    """
    if not len(objects):
        return {}
    height, width = maps.image.shape[:2]
    truth = F.interpolate(torch.from_numpy(objects)[None].float(), (height, width), mode="nearest-exact")[0] > 0.5
    truth = truth[truth.flatten(1).any(1)]  # (objects, h, w)
    if not len(truth):  # too small to be seen
        return {}
    n = len(maps.raw)
    raw = torch.cat([maps.raw, maps.raw.mean(0, keepdim=True)]) if n > 1 else maps.raw
    kept = mass_mask(raw, maps.share)  # on the grid of patches
    names = [f"head {i}" for i in range(n)] + ["mean"] if n > 1 else ["map"]
    if n > 1:
        kept = torch.cat([kept, kept[:n].any(0, keepdim=True)])
        names.append("union")
    overlap = jaccard(maps.spread(kept), truth)
    boxes = [box(part) for part in truth]
    found = {
        name: {"jaccard": float(overlap[i].mean()), "corloc": float(_finds(maps.spread(largest_part(kept[i])), boxes))}
        for i, name in enumerate(names)
    }
    for i, values in enumerate(raw):
        found[names[i]]["pointing"] = float(_points(values, maps, truth))
    return found | {BEST: {"jaccard": float(overlap[:n].amax(0).mean())}}


def jaccard(masks: Tensor, objects: Tensor) -> Tensor:
    """Intersection over union of every mask with every object: bool (m, h, w), (n, h, w) -> float64 (m, n)."""
    a, b = masks.flatten(1).double(), objects.flatten(1).double()
    both = a @ b.T
    return both / (a.sum(1)[:, None] + b.sum(1) - both)


def box(mask: Tensor) -> Box:
    """The smallest box around a mask (h, w) that holds somewhere."""
    rows, columns = (mask.any(axis).nonzero().flatten() for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def largest_part(mask: Tensor) -> Tensor:
    """The largest of the parts of ``mask`` (h, w) that hang together, corners not counted."""
    before, part = torch.zeros(()), torch.arange(1.0, mask.numel() + 1).view(1, *mask.shape) * mask
    while not torch.equal(before, part):  # every place takes the largest number that it can reach
        before = part
        part = torch.maximum(F.max_pool2d(part, (3, 1), 1, (1, 0)), F.max_pool2d(part, (1, 3), 1, (0, 1))) * mask
    sizes = torch.bincount(part.flatten().long())
    sizes[0] = 0
    return part[0] == sizes.argmax() if len(sizes) > 1 else mask


def box_overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    height, width = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    both = max(0, height) * max(0, width)
    first, second = ((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return both / (first + second - both)


def centre_prior(image: NDArray[np.uint8], look: Look, side: int) -> AttentionMaps:
    """What knows of no image but that objects stand in the middle: a Gaussian there, in patches of ``side`` px."""
    shown = fit_area(image, look.size)
    lengths = shown.shape[1:]
    across = [((torch.arange(-(-n // side)) + 0.5) * side / n - 0.5) / CENTRE for n in lengths]
    down, right = (torch.exp(-(x**2) / 2) for x in across)
    return AttentionMaps(shown.permute(1, 2, 0).numpy(), (down[:, None] * right)[None], side, look.share)


def entropy(maps: Tensor) -> Tensor:
    """How evenly each map spreads, in nats: (maps, h, w) -> (maps,), ln(h w) where all places have as much."""
    p = maps.double().flatten(1)
    p = p / p.sum(1, keepdim=True)
    return -torch.xlogy(p, p).sum(1)


def as_sharp(maps: AttentionMaps, other: AttentionMaps) -> AttentionMaps:
    """``maps`` raised to the power at which their mean entropy is that of ``other``, maps of the same image.

    Of attention that is a factor on its logits: exp(s) to the power b is exp(b s), and a softmax divides by the sum.
    """
    logits, wanted = maps.raw.double().clamp_min(1e-30).log().flatten(1), float(entropy(other.raw).mean())
    low, high = -10.0, 20.0  # of the power's binary logarithm; entropy falls with it

    def sharpened(exponent: float) -> Tensor:
        return torch.softmax(2**exponent * logits, 1).view(maps.raw.shape)

    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if float(entropy(sharpened(middle)).mean()) > wanted else (low, middle)
    return replace(maps, raw=sharpened(high).float())


def rows(found: Found) -> list[Row]:
    """A row for each map, with its scores over the images."""
    return [Row(name, {key: interval(key, values) for key, values in cells.items()}) for name, cells in found.items()]


def interval(measure: str, values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval over images: Wilson's of a share of hits, the normal one of overlaps."""
    mean = float(np.mean(values))
    if measure != "jaccard":
        return (mean, *wilson(mean, len(values)))
    half = Z95 * float(np.std(values)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def gain(found: Found, other: Found) -> tuple[float, float, float]:
    """By how much the best head's Jaccard is above that of ``other`` on the same images, and its 95 % interval."""
    here, there = (np.array(part[BEST]["jaccard"]) for part in (found, other))
    return interval("jaccard", (here - there).tolist())


def _finds(part: Tensor, boxes: Sequence[Box]) -> bool:
    return bool(part.any()) and any(box_overlap(box(part), true) > 0.5 for true in boxes)


def _points(raw: Tensor, maps: AttentionMaps, truth: Tensor) -> bool:
    row, column = divmod(int(raw.argmax()), raw.shape[1])
    height, width = truth.shape[1:]
    y, x = (min(int((i + 0.5) * maps.stride), n - 1) for i, n in ((row, height), (column, width)))
    return bool(truth[:, y, x].any())
