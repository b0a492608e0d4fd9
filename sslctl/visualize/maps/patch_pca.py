"""Patch features of many images as colours, by principal components that all images share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...backbones import Backbone
from ...data.decode import BadImage, Pixels
from ...data.source import Source
from ...errors import DataError
from ..paint import Picture, fit, save, sheet
from .attention import fit_area, network_input, upsample
from .over_time import spaced
from .pictures import Failed, Written, output_names

FIT = 100  # images, evenly spaced, that the basis is fitted on
SHOWN = 24  # images on the sheet
TILE = 160  # px
TAIL = 0.01  # share of patches at either end of a component that may be cut off when it becomes a colour

Sight = Callable[[Pixels], tuple[Tensor, Tensor]]  # pixels -> shown uint8 (3, h, w), features (D, rows, columns)


@dataclass(frozen=True)
class Basis:
    """What is shared: the component that tells object from ground, and three that become red, green and blue."""

    center: Tensor  # (D,) mean of all patches
    first: Tensor  # (D,) their first component, positive on the foreground
    middle: Tensor  # (D,) mean of the foreground
    axes: Tensor  # (3, D) its first components
    low: Tensor  # (3,) the score that becomes 0
    high: Tensor  # (3,) and the one that becomes 255
    explained: tuple[float, ...]  # shares of the variance: of the first, then of the three

    def foreground(self, features: Tensor) -> Tensor:
        """(D, h, w) -> bool (h, w)."""
        return torch.einsum("d,dhw->hw", self.first, features - self.center[:, None, None]) > 0

    def colours(self, features: Tensor) -> Tensor:
        """(D, h, w) -> uint8 (h, w, 3)."""
        score = torch.einsum("cd,dhw->hwc", self.axes, features - self.middle[:, None, None])
        return ((score - self.low) / (self.high - self.low).clamp_min(1e-12) * 255).round().clamp(0, 255).byte()


def sight(backbone: Backbone, mean: tuple[float, ...], std: tuple[float, ...], size: int) -> Sight:
    """How an image becomes features: its aspect kept, at about ``size`` x ``size`` px of area."""

    def see(image: Pixels) -> tuple[Tensor, Tensor]:
        shown = fit_area(image, size)
        with torch.no_grad():
            return shown, backbone(network_input(backbone, shown, mean, std)).map[0].float().cpu()

    return see


def write_pca(
    see: Sight,
    stride: int,
    source: Source,
    out: Path,
    *,
    whole: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Written, Failed, Basis]:
    """``<name>_pca.png`` for every image of ``source`` and ``sheet.png`` of some; one image in memory at a time.

    The basis comes from at most ``FIT`` images. Where not ``whole``, what is not foreground is black.
    Gives what was written, the images that cannot be read, and the basis. Raises DataError where none can be read.
    """
    basis = fit_basis((features for _, features in _seen(see, source, spaced(source, FIT))), whole)
    written: Written = []
    failed: Failed = []
    tiles: list[tuple[str, Picture]] = []
    on_sheet = set(spaced(source, SHOWN))
    for i, name in enumerate(output_names(source)):
        try:
            shown, features = see(source.read(i))
        except BadImage as e:
            failed.append({"image": source.item_name(i), "reason": e.reason})
        else:
            keep = torch.ones(features.shape[1:], dtype=torch.bool) if whole else basis.foreground(features)
            painted = paint(basis, features, keep, stride, shown)
            path = save(painted, out / f"{name}_pca.png")
            share = float(keep.float().mean())
            written.append({"image": source.item_name(i), "files": [str(path)], "foreground": share})
            if i in on_sheet:
                tiles += [(path.stem[-26:-4], fit(shown.permute(1, 2, 0).numpy(), TILE)), ("", fit(painted, TILE, 0))]
        progress(i + 1, len(source))
    if tiles:
        save(sheet(tiles, 8), out / "sheet.png")
    return written, failed, basis


def paint(basis: Basis, features: Tensor, keep: Tensor, stride: int, shown: Tensor) -> Picture:
    """The colours of an image's patches as squares, black where not ``keep`` (rows, columns), without padding."""
    colours = basis.colours(features) * keep[..., None]
    found: Picture = upsample(colours.permute(2, 0, 1), stride)[:, : shown.shape[1], : shown.shape[2]].numpy()
    return np.ascontiguousarray(found.transpose(1, 2, 0))


def fit_basis(maps: Iterator[Tensor], whole: bool = False) -> Basis:
    """The basis of feature maps (D, rows, columns), of any sizes.

    As the pictures of DINOv2 (Oquab et al. 2023, figure 1): the first component of all patches tells object from ground
    by its sign; then three components of the foreground alone. A component has no sign of its own: the ground is what
    lies more at the images' edges, and of each colour's axis the largest number is positive.
    """
    found: list[Tensor] = []
    edges: list[Tensor] = []
    for features in maps:
        edge = torch.ones(features.shape[1:], dtype=torch.bool)
        edge[1:-1, 1:-1] = False
        found.append(features.flatten(1).T.double())
        edges.append(edge.flatten())
    if not found:
        raise DataError("none of the images can be read", "give others")
    x, edge = torch.cat(found), torch.cat(edges)  # (patches, D), (patches,)
    center, axes, explained = components(x, 1)
    score = (x - center) @ axes[0]
    if edge.any() and not edge.all() and score[edge].mean() > score[~edge].mean():
        axes, score = -axes, -score
    front = x if whole or int((score > 0).sum()) < 4 else x[score > 0]
    middle, colours, shares = components(front, 3)
    scores = (front - middle) @ colours.T
    low, high = (torch.quantile(scores[:: max(1, len(scores) // 100_000)], q, dim=0) for q in (TAIL, 1 - TAIL))
    made = [t.float() for t in (center, axes[0], middle, colours, low, high)]
    return Basis(made[0], made[1], made[2], made[3], made[4], made[5], (*explained, *shares))


def components(x: Tensor, n: int) -> tuple[Tensor, Tensor, list[float]]:
    """Mean (D,) of rows ``x`` (m, D), their first ``n`` principal axes (n, D), and the shares of variance they hold."""
    mean = x.mean(0)
    centred = x - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    n = min(n, len(values))
    axes = vectors[:, -n:].flip(1).T
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    shares = values[-n:].flip(0) / values.sum().clamp_min(1e-30)
    return mean, axes * largest.sign(), shares.tolist()


def _seen(see: Sight, source: Source, wanted: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    for i in wanted:
        try:
            yield see(source.read(i))
        except BadImage:
            continue
