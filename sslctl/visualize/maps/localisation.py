"""How well maps localise objects: Jaccard index of masks, CorLoc of the largest part's box, pointing game."""

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
from .attention import AttentionMaps, MapOptions, fit_area, mass_mask
from .true_masks import TrueMasks

MapFunction = Callable[[NDArray[np.uint8]], Mapping[str, AttentionMaps]]  # image -> maps by their source
Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two exclusive

CENTRE = 0.3  # standard deviation of the centre prior, in image sides: the best of 0.2, 0.25, 0.3, 0.5 on stamps
MEASURES = ("jaccard", "corloc", "pointing")
BEST = "best head"


@dataclass(frozen=True)
class MapScore:
    """The score of a map over images: value and 95 % interval of each measure that it has."""

    name: str
    values: Mapping[str, tuple[float, float, float]]

    def as_dict(self) -> dict[str, Any]:
        """Return the score as it stands in JSON."""
        measures = {key: {"value": v, "interval": [low, high]} for key, (v, low, high) in self.values.items()}
        return {"map": self.name, **measures}


ImageScores = dict[str, dict[str, list[float]]]  # map -> measure -> a number for each image


def score_maps(
    source: Source,
    truth: TrueMasks,
    map_function: MapFunction,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, ImageScores], list[dict[str, str]]]:
    """Score all maps on every image that has a mask; return scores by source and unreadable images or masks.

    One image is in memory at a time, decoded once. Raises DataError if none can be scored.
    """
    scores: dict[str, ImageScores] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    failed: list[dict[str, str]] = []
    pairs = truth.pairs(source)
    for done, (i, path) in enumerate(pairs, 1):
        try:
            image, objects = source.read(i), truth.read(path)
        except BadImage as e:
            failed.append({"image": source.item_name(i), "reason": e.reason})
            continue
        for name, maps in map_function(image).items():
            for row, values in score_image(maps, objects).items():
                for key, value in values.items():
                    scores[name][row][key].append(value)
        progress(done, len(pairs))
    if len(failed) == len(pairs):
        raise DataError(f"{source.name}: none of its {len(pairs)} images and masks can be read: {failed[0]['reason']}")
    return scores, failed


def score_image(maps: AttentionMaps, objects: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    """Score an image's maps, their mean, their union and the best map; ``objects`` is (objects, H, W).

    ``jaccard``: intersection over union, mean over the objects; ``best head`` takes for every object the map that fits
    it best (DINO's figure for VOC12, issue 54 of facebookresearch/dino). ``corloc``: whether the box around
    the largest part of the mask overlaps an object's box by more than half (Deselaers et al. 2010). ``pointing``:
    whether the middle of the largest patch lies on an object (Zhang et al. 2016, without tolerance).
    """
    if not len(objects):
        return {}
    height, width = maps.image.shape[:2]
    truth = F.interpolate(torch.from_numpy(objects)[None].float(), (height, width), mode="nearest-exact")[0] > 0.5
    truth = truth[truth.flatten(1).any(1)]  # (objects, h, w)
    if not len(truth):  # smaller than a pixel at this size
        return {}
    n = len(maps.raw)
    raw = torch.cat([maps.raw, maps.raw.mean(0, keepdim=True)]) if n > 1 else maps.raw
    masks = mass_mask(raw, maps.share)  # on the grid of patches
    names = [f"head {i}" for i in range(n)] + ["mean"] if n > 1 else ["map"]
    if n > 1:
        masks = torch.cat([masks, masks[:n].any(0, keepdim=True)])
        names.append("union")
    overlap = jaccard(maps.to_pixels(masks), truth)
    boxes = [box(part) for part in truth]
    scores = {
        name: {
            "jaccard": float(overlap[i].mean()),
            "corloc": float(_box_hits(maps.to_pixels(largest_part(masks[i])), boxes)),
        }
        for i, name in enumerate(names)
    }
    for i, values in enumerate(raw):
        scores[names[i]]["pointing"] = float(_peak_hits(values, maps, truth))
    return scores | {BEST: {"jaccard": float(overlap[:n].amax(0).mean())}}


def jaccard(masks: Tensor, objects: Tensor) -> Tensor:
    """Return intersection over union of masks and objects: bool (m, h, w), (n, h, w) -> float64 (m, n)."""
    a, b = masks.flatten(1).double(), objects.flatten(1).double()
    both = a @ b.T
    return both / (a.sum(1)[:, None] + b.sum(1) - both)


def box(mask: Tensor) -> Box:
    """Return the smallest box around a mask (h, w) that is not empty."""
    rows, columns = (mask.any(axis).nonzero().flatten() for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def largest_part(mask: Tensor) -> Tensor:
    """Return the largest 4-connected component of ``mask`` (h, w)."""
    before, part = torch.zeros(()), torch.arange(1.0, mask.numel() + 1).view(1, *mask.shape) * mask
    while not torch.equal(before, part):  # every pixel takes the largest number in its component
        before = part
        part = torch.maximum(F.max_pool2d(part, (3, 1), 1, (1, 0)), F.max_pool2d(part, (1, 3), 1, (0, 1))) * mask
    sizes = torch.bincount(part.flatten().long())
    sizes[0] = 0
    return part[0] == sizes.argmax() if len(sizes) > 1 else mask


def box_overlap(a: Box, b: Box) -> float:
    """Return intersection over union of two boxes."""
    height, width = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    both = max(0, height) * max(0, width)
    first, second = ((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return both / (first + second - both)


def centre_prior(image: NDArray[np.uint8], options: MapOptions, side: int) -> AttentionMaps:
    """Return a Gaussian in the middle of the image as its map, in patches of ``side`` px: a trivial baseline."""
    resized = fit_area(image, options.size)
    lengths = resized.shape[1:]
    across = [((torch.arange(-(-n // side)) + 0.5) * side / n - 0.5) / CENTRE for n in lengths]
    down, right = (torch.exp(-(x**2) / 2) for x in across)
    return AttentionMaps(resized.permute(1, 2, 0).numpy(), (down[:, None] * right)[None], side, options.share)


def entropy(maps: Tensor) -> Tensor:
    """Return the entropy of each map in nats: (maps, h, w) -> (maps,), at most ln(h w)."""
    p = maps.double().flatten(1)
    p = p / p.sum(1, keepdim=True)
    return -torch.xlogy(p, p).sum(1)


def match_entropy(maps: AttentionMaps, other: AttentionMaps) -> AttentionMaps:
    """Raise ``maps`` to the power at which their mean entropy equals that of ``other``, maps of the same image.

    For attention that is a factor on the logits: exp(s) to the power b is exp(b s), and a softmax divides by the sum.
    """
    logits, target = maps.raw.double().clamp_min(1e-30).log().flatten(1), float(entropy(other.raw).mean())
    low, high = -10.0, 20.0  # log2 of the power; entropy falls as it grows

    def sharpen(exponent: float) -> Tensor:
        return torch.softmax(2**exponent * logits, 1).view(maps.raw.shape)

    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if float(entropy(sharpen(middle)).mean()) > target else (low, middle)
    return replace(maps, raw=sharpen(high).float())


def summarise(scores: ImageScores) -> list[MapScore]:
    """Return the score of each map over the images."""
    return [
        MapScore(name, {key: interval(key, values) for key, values in cells.items()}) for name, cells in scores.items()
    ]


def interval(measure: str, values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean and 95 % interval over images: Wilson's for a share of hits, the normal one for Jaccard."""
    mean = float(np.mean(values))
    if measure != "jaccard":
        return (mean, *wilson(mean, len(values)))
    half = Z95 * float(np.std(values)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def gain(scores: ImageScores, other: ImageScores) -> tuple[float, float, float]:
    """Return by how much the best head's Jaccard exceeds that of ``other`` on the same images, with 95 % interval."""
    values, baseline = (np.array(part[BEST]["jaccard"]) for part in (scores, other))
    return interval("jaccard", (values - baseline).tolist())


def _box_hits(part: Tensor, boxes: Sequence[Box]) -> bool:
    return bool(part.any()) and any(box_overlap(box(part), true) > 0.5 for true in boxes)


def _peak_hits(raw: Tensor, maps: AttentionMaps, truth: Tensor) -> bool:
    row, column = divmod(int(raw.argmax()), raw.shape[1])
    height, width = truth.shape[1:]
    y, x = (min(int((i + 0.5) * maps.stride), n - 1) for i, n in ((row, height), (column, width)))
    return bool(truth[:, y, x].any())
