"""Pictures of a report: what is embedded is what was computed, in bounded number and time."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslctl.data.source import ArraySource
from sslctl.methods.resolve import resolve
from sslctl.visualize.maps.over_time import IMAGES, MapHistory, evenly_spaced
from sslctl.visualize.paint import blend, colour
from sslctl.visualize.report.exhibits import (
    NEAREST,
    SIDE,
    Picture,
    find_neighbours,
    open_images,
    paint_history,
    picture,
    read_within,
    sample_views,
)
from tests.exchange.exports.encoders import encoder
from tests.training import picture_folder


def pixels(shown: Picture) -> np.ndarray:
    """Decode the picture in its data URI."""
    head, _, body = shown.uri.partition(";base64,")
    assert head in ("data:image/png", "data:image/jpeg")
    with Image.open(io.BytesIO(base64.b64decode(body))) as image:
        return np.asarray(image)


def test_small_pictures_keep_their_pixels_and_large_ones_are_shrunk() -> None:
    array = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    small = picture(torch.from_numpy(array).permute(2, 0, 1), "a", 0.5)
    assert np.array_equal(pixels(small), array) and small.crisp and small.side == SIDE // 2
    large = picture(np.full((400, 800, 3), 90, np.uint8), "b")
    assert pixels(large).shape == (SIDE, 2 * SIDE, 3) and not large.crisp
    assert np.abs(pixels(large).astype(int) - 90).max() <= 2


def test_maps_lie_over_their_images_in_the_order_of_steps() -> None:
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    maps = {0: torch.rand(2, 16, 16), 5: torch.rand(2, 16, 16)}
    rows = paint_history(MapHistory(images, ["x/a.png", "b"], maps))
    assert [[p.caption for p in row] for row in rows] == [["a.png", "step 0", "step 5"], ["b", "step 0", "step 5"]]
    image = images[1].permute(1, 2, 0).numpy()
    assert np.array_equal(pixels(rows[1][0]), image)
    assert np.array_equal(pixels(rows[1][2]), blend(image, colour(maps[5][1].numpy()), 0.55))


def test_unreadable_images_are_passed_over_and_time_ends_the_rest() -> None:
    source = ArraySource("set", np.zeros((5, 8, 8, 3), np.uint8))
    assert [i for i, _ in read_within(source, [3, 1, 4], seconds=60)] == [3, 1, 4]
    assert [i for i, _ in read_within(source, [3, 1, 4], seconds=-1)] == [3], "one at least"


@pytest.mark.parametrize("labelled", [True, False])
def test_neighbours_are_the_images_that_look_alike(labelled: bool) -> None:
    hues = np.arange(40) % 4
    array = np.stack([np.roll([200, 60, 10], hue) if hue < 3 else np.full(3, 128) for hue in hues])
    array = np.broadcast_to(array[:, None, None], (40, 32, 32, 3)).astype(np.uint8)
    classes = ["red", "green", "blue", "<grey>"]
    source = ArraySource("set", array, hues if labelled else None, classes if labelled else [])
    found = find_neighbours(encoder("resnet", 32), source, torch.device("cpu"), seconds=60)
    assert found.searched == 40 and len(found.neighbours) == IMAGES and not found.missing
    for i, row in zip(evenly_spaced(source, IMAGES), found.neighbours, strict=True):
        assert len(row) == 1 + NEAREST
        assert all(np.array_equal(pixels(other), array[i]) for other in row), "ten of each colour"
        assert all(other.caption.startswith("1.00") for other in row[1:])
        assert [other.good for other in row[1:]] == [True if labelled else None] * NEAREST
    assert found.agreement == (1.0 if labelled else None)


def test_a_single_image_has_no_neighbours() -> None:
    source = ArraySource("one", np.zeros((1, 32, 32, 3), np.uint8))
    found = find_neighbours(encoder("resnet", 32), source, torch.device("cpu"), seconds=60)
    assert found.neighbours == [] and "fewer than two" in found.missing["neighbours"]


def test_views_are_those_of_the_spec_on_images_of_its_set(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "pictures", 8)
    spec = resolve({"data": {"path": str(folder)}, "method": {"name": "swav"}, "views": {"multi_crop": "2x32+3x16"}})
    source = open_images(spec)
    rows = sample_views(spec, source)
    assert len(rows) == 3 and [p.caption for p in rows[0]] == ["image", *["32 px"] * 2, *["16 px"] * 3]
    assert pixels(rows[0][1]).shape == (32, 32, 3) and rows == sample_views(spec, source)
    assert not np.array_equal(pixels(rows[0][1]), pixels(rows[0][2]))
