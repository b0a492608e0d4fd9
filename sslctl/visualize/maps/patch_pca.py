"""Patch features of images as colours, by principal components that all images share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from ...backbones import Backbone
from ...data.decode import BadImage, Pixels
from ...data.source import Source
from ...errors import DataError
from ..paint import Picture, fit_square, save_png, tile_sheet
from .attention import fit_area, network_input, upsample
from .over_time import evenly_spaced
from .pictures import Entries, Failures, read_images

FIT_IMAGES = 100  # evenly spaced, that the basis is fitted on
SHEET_IMAGES = 24
TILE = 160  # px
TAIL = 0.01  # share of patches clipped at either end of a component when it becomes a colour

FeatureFunction = Callable[
    [Pixels], tuple[Tensor, Tensor]
]  # pixels -> resized uint8 (3, h, w), features (D, rows, columns)


@dataclass(frozen=True)
class ColourBasis:
    """The shared basis: a component that separates foreground, and three that become red, green and blue."""

    center: Tensor  # (D,) mean of all patches
    first: Tensor  # (D,) their first component, positive on the foreground
    middle: Tensor  # (D,) mean of the foreground
    axes: Tensor  # (3, D) its first components
    low: Tensor  # (3,) the score that becomes 0
    high: Tensor  # (3,) the score that becomes 255
    explained: tuple[float, ...]  # shares of variance: of the first component, then of the three

    def foreground(self, features: Tensor) -> Tensor:
        """Separate foreground: (D, h, w) -> bool (h, w)."""
        return torch.einsum("d,dhw->hw", self.first, features - self.center[:, None, None]) > 0

    def colours(self, features: Tensor) -> Tensor:
        """Colour features: (D, h, w) -> uint8 (h, w, 3)."""
        score = torch.einsum("cd,dhw->hwc", self.axes, features - self.middle[:, None, None])
        return ((score - self.low) / (self.high - self.low).clamp_min(1e-12) * 255).round().clamp(0, 255).byte()


def feature_function(backbone: Backbone, mean: tuple[float, ...], std: tuple[float, ...], size: int) -> FeatureFunction:
    """Return a function from an image to its patch features, at about ``size`` x ``size`` px of area."""

    def features_of(image: Pixels) -> tuple[Tensor, Tensor]:
        resized = fit_area(image, size)
        with torch.no_grad():
            return resized, backbone(network_input(backbone, resized, mean, std)).map[0].float().cpu()

    return features_of


def write_pca(
    features_of: FeatureFunction,
    stride: int,
    source: Source,
    out: Path,
    *,
    whole: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Entries, Failures, ColourBasis]:
    """Write ``<name>_pca.png`` for every image of ``source`` and ``sheet.png`` of some, one image in memory at a time.

    The basis is fitted on at most ``FIT_IMAGES`` images. Unless ``whole``, background is black. Returns an entry for
    each image, the images that cannot be read, and the basis. Raises DataError if none can be read.
    """
    basis = fit_basis(
        (features for _, features in _readable(features_of, source, evenly_spaced(source, FIT_IMAGES))), whole
    )
    entries: Entries = []
    failed: Failures = []
    tiles: list[tuple[str, Picture]] = []
    on_sheet = set(evenly_spaced(source, SHEET_IMAGES))
    for i, name, pixels in read_images(source, failed, progress):
        image, features = features_of(pixels)
        keep = torch.ones(features.shape[1:], dtype=torch.bool) if whole else basis.foreground(features)
        picture = paint_patches(basis, features, keep, stride, image)
        path = save_png(picture, out / f"{name}_pca.png")
        share = float(keep.float().mean())
        entries.append({"image": source.item_name(i), "files": [str(path)], "foreground": share})
        if i in on_sheet:
            tiles += [
                (path.stem[-26:-4], fit_square(image.permute(1, 2, 0).numpy(), TILE)),
                ("", fit_square(picture, TILE, 0)),
            ]
    if tiles:
        save_png(tile_sheet(tiles, 8), out / "sheet.png")
    return entries, failed, basis


def paint_patches(basis: ColourBasis, features: Tensor, keep: Tensor, stride: int, image: Tensor) -> Picture:
    """Paint the patches of ``image`` (3, h, w) as coloured squares, black outside ``keep`` (rows, columns)."""
    colours = basis.colours(features) * keep[..., None]
    pixels = upsample(colours.permute(2, 0, 1), stride)[:, : image.shape[1], : image.shape[2]]
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


def fit_basis(maps: Iterator[Tensor], whole: bool = False) -> ColourBasis:
    """Fit the basis of feature maps (D, rows, columns) of any sizes. Raises DataError if there are none.

    As in DINOv2 (Oquab et al. 2023, figure 1), the sign of the first component of all patches separates foreground,
    and three components of the foreground become colours. Signs of components are arbitrary: background is the side
    more frequent at image edges, and the largest number of each colour's axis is positive.
    """
    rows: list[Tensor] = []
    edges: list[Tensor] = []
    for features in maps:
        edge = torch.ones(features.shape[1:], dtype=torch.bool)
        edge[1:-1, 1:-1] = False
        rows.append(features.flatten(1).T.double())
        edges.append(edge.flatten())
    if not rows:
        raise DataError("none of the images can be read", "give other images")
    x, edge = torch.cat(rows), torch.cat(edges)  # (patches, D), (patches,)
    center, axes, explained = principal_components(x, 1)
    score = (x - center) @ axes[0]
    if edge.any() and not edge.all() and score[edge].mean() > score[~edge].mean():
        axes, score = -axes, -score
    front = x if whole or int((score > 0).sum()) < 4 else x[score > 0]
    middle, colours, shares = principal_components(front, 3)
    scores = (front - middle) @ colours.T
    low, high = (torch.quantile(scores[:: max(1, len(scores) // 100_000)], q, dim=0) for q in (TAIL, 1 - TAIL))
    return ColourBasis(
        center.float(),
        axes[0].float(),
        middle.float(),
        colours.float(),
        low.float(),
        high.float(),
        (*explained, *shares),
    )


def principal_components(x: Tensor, n: int) -> tuple[Tensor, Tensor, list[float]]:
    """Return the mean (D,) of rows ``x`` (m, D), at most ``n`` principal axes (n, D), and their shares of variance.

    The largest number of each axis is positive.
    """
    mean = x.mean(0)
    with np.errstate(invalid="ignore"):  # equal rows have no variance to share
        pca = PCA(min(n, *x.shape), svd_solver="covariance_eigh").fit((x - mean).numpy())
    return mean, torch.from_numpy(pca.components_), np.nan_to_num(pca.explained_variance_ratio_).tolist()


def _readable(features_of: FeatureFunction, source: Source, positions: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    for i in positions:
        try:
            yield features_of(source.read(i))
        except BadImage:
            continue
