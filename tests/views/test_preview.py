"""The contact sheet shows what the network is shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sslctl.data.loader import Batch
from sslctl.views.augment import Augment
from sslctl.views.preview import contact_sheet
from sslctl.views.recipe import IMAGENET_MEAN, IMAGENET_STD, ViewPlan, ViewSpec

LARGE = ViewSpec(size=96, solarize_p=0.5)
SMALL = ViewSpec(size=48, scale=(0.05, 0.4))


def contains(sheet: NDArray[np.uint8], tile: NDArray[np.uint8]) -> bool:
    """Whether ``tile`` stands somewhere in ``sheet``, pixel for pixel."""
    h, w = tile.shape[:2]
    corner = (sheet[: sheet.shape[0] - h + 1, : sheet.shape[1] - w + 1] == tile[0, 0]).all(-1)
    return any((sheet[y : y + h, x : x + w] == tile).all() for y, x in np.argwhere(corner))


def tiles(images: Sequence[NDArray[np.uint8]], augment: Augment, epoch: int) -> list[NDArray[np.uint8]]:
    """Every view of every image as pixels, made without the sheet's own code."""
    crops = [augment.geometric(image, epoch, i) for i, image in enumerate(images)]
    index = torch.arange(len(images))
    batch = Batch(index, index * 0 + epoch, [torch.stack(v) for v in zip(*crops, strict=True)], None, None, [])
    mean, std = (torch.tensor(v)[:, None, None] for v in (augment.plan.mean, augment.plan.std))
    views = [view for several in augment(batch, torch.device("cpu")).all for view in several]
    return [((v * std + mean) * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy() for v in views]


def test_every_view_stands_on_the_sheet_as_it_is(photos: list[NDArray[np.uint8]]) -> None:
    augment = Augment(ViewPlan((LARGE, LARGE), (SMALL,), IMAGENET_MEAN, IMAGENET_STD), 5)
    sheet = np.asarray(contact_sheet(photos, augment, ["china.jpg", "a/b/flower.jpg", "portrait"], epoch=3))
    shown = tiles(photos, augment, 3)
    assert len(shown) == 9 and {tile.shape[0] for tile in shown} == {96, 48}
    assert all(contains(sheet, tile) for tile in shown)
    assert not any(contains(sheet, tile) for tile in tiles(photos, augment, 4))


def test_small_views_are_enlarged_by_a_whole_factor(patches: NDArray[np.uint8]) -> None:
    small = ViewSpec(size=32, blur_p=0)
    augment = Augment(ViewPlan((small,), (small.model_copy(update={"size": 16}),), (0, 0, 0), (1, 1, 1)), 0)
    sheet = np.asarray(contact_sheet(list(patches[:2]), augment, ["0", "1"]))
    for tile in tiles(patches[:2], augment, 0):
        assert contains(sheet, tile.repeat(3, 0).repeat(3, 1))


def test_one_tiny_image_with_a_long_name() -> None:
    plan = ViewPlan((LARGE,), (), IMAGENET_MEAN, IMAGENET_STD)
    sheet = contact_sheet([np.zeros((1, 300, 3), np.uint8)], Augment(plan, 0), ["folder/" * 40 + "image.png"])
    assert sheet.mode == "RGB" and sheet.width < 400
