"""The pictures of a report: what they show, read back from the page's own bytes."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslctl.data.folder import open_folder
from sslctl.data.source import ArraySource
from sslctl.methods.resolve import resolve
from sslctl.visualize.maps.over_time import MapHistory
from sslctl.visualize.report.exhibits import (
    IMAGES,
    NEAREST,
    SIDE,
    SMALL,
    Picture,
    find_neighbours,
    open_images,
    paint_history,
    picture,
    read_within,
    sample_views,
)

from ...exchange.exports.encoders import encoder
from ...training import picture_folder, small_spec


def pixels(shown: Picture) -> np.ndarray:
    kind, _, data = shown.uri.removeprefix("data:image/").partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format == kind.upper()
    return np.asarray(image)


def test_small_pictures_keep_their_pixels_and_large_ones_are_shrunk() -> None:
    small = np.random.default_rng(0).integers(0, 256, (SMALL, 40, 3), dtype=np.uint8)
    kept = picture(small, "a", scale=0.5, good=True)
    assert (pixels(kept) == small).all() and kept[1:] == ("a", round(SIDE / 2), True, True)
    assert (pixels(picture(torch.from_numpy(small).permute(2, 0, 1), "a")) == small).all()
    large = picture(np.full((300, 600, 3), 77, np.uint8), "b")
    assert pixels(large).shape == (SIDE, 2 * SIDE, 3) and abs(pixels(large).mean() - 77) < 2 and not large.crisp


def test_views_are_those_of_the_first_epoch_with_their_sizes(tmp_path: Path) -> None:
    spec = resolve(small_spec(picture_folder(tmp_path / "pictures", 9)))
    rows = sample_views(spec, open_images(spec))
    assert len(rows) == 3 and [one.caption for one in rows[0]] == ["image", *["32 px"] * 2, *["16 px"] * 2]
    assert [one.side for one in rows[0][1:]] == [SIDE, SIDE, round(SIDE / 2), round(SIDE / 2)]
    assert rows == sample_views(spec, open_images(spec))


def test_maps_are_laid_over_their_image_step_by_step() -> None:
    image = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    ramp = torch.linspace(0, 1, 4).expand(1, 4, 4)
    ((plain, first, second),) = paint_history(MapHistory(image, ["a/b.png"], {0: ramp, 50: ramp.flip(2)}))
    assert (plain.caption, first.caption, second.caption) == ("b.png", "step 0", "step 50")
    left, right = pixels(first)[:, 0].mean(), pixels(first)[:, -1].mean()
    assert left < right and (pixels(second) == pixels(first)[:, ::-1]).all()


def test_neighbours_are_the_nearest_by_cosine_with_their_classes() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (2, 32, 32, 3))
    labels = np.arange(24) % 2
    array = (base[labels] + rng.integers(-3, 4, (24, 32, 32, 3))).clip(0, 255).astype(np.uint8)
    found = find_neighbours(
        encoder("resnet", 32), ArraySource("set", array, labels, ["a", "b"]), torch.device("cpu"), 60
    )
    assert found.searched == 24 and len(found.neighbours) == IMAGES and found.agreement == 1.0
    for row in found.neighbours:
        assert len(row) == 1 + NEAREST and all(one.good and one.caption.endswith(row[0].caption) for one in row[1:])
        cosines = [float(one.caption.split()[0]) for one in row[1:]]
        assert cosines == sorted(cosines, reverse=True)


def test_without_two_images_it_says_so_and_without_labels_there_is_no_agreement(tmp_path: Path) -> None:
    alone = find_neighbours(
        encoder("resnet", 32), ArraySource("set", np.zeros((1, 32, 32, 3), np.uint8)), torch.device("cpu"), 9
    )
    assert alone.neighbours == [] and "fewer than two images" in alone.missing["neighbours"]
    folder = picture_folder(tmp_path / "pictures", 8, labels=1)
    plain = find_neighbours(
        encoder("resnet", 32), open_folder(str(folder / "class0"), "train"), torch.device("cpu"), 60
    )
    assert plain.agreement is None and all(one.good is None for row in plain.neighbours for one in row)


@pytest.mark.parametrize(("seconds", "count"), [(60.0, 3), (0.0, 1)])
def test_reading_stops_when_its_time_is_over_and_skips_what_is_broken(
    tmp_path: Path, seconds: float, count: int
) -> None:
    folder = picture_folder(tmp_path / "pictures", 4)
    (folder / "class0" / "000.jpg").write_bytes(b"")
    source = open_folder(str(folder), "train")
    found = list(read_within(source, [0, 1, 2, 3], seconds))
    assert len(found) == count and (found[0][1] == source.read(found[0][0])).all()
