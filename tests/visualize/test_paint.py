"""Pictures made of numbers, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from sslctl.errors import MachineError
from sslctl.visualize.paint import (
    CAPTION,
    GAP,
    add_frame,
    blend,
    colour,
    darken_outside,
    fit_square,
    mask_picture,
    save_png,
    tile_sheet,
)

RED, BLUE = (255, 0, 0), (0, 0, 255)


def plain(rgb: tuple[int, int, int], height: int = 4, width: int = 6) -> np.ndarray:
    return np.full((height, width, 3), rgb, np.uint8)


def test_colours_run_from_the_least_to_the_largest_value() -> None:
    picture = colour(np.array([[-2.0, 0.0, 2.0]]), "viridis")
    expected = [[round(255 * c) for c in matplotlib.colormaps["viridis"](share)[:3]] for share in (0.0, 0.5, 1.0)]
    assert picture[0].tolist() == expected
    assert (colour(np.full((2, 2), 7.0)) == colour(np.zeros((2, 2)))).all(), "equal values have the lowest colour"


def test_masks_blends_and_dimmed_outsides() -> None:
    keep = np.array([[True, False]])
    assert mask_picture(keep).tolist() == [[[255] * 3, [0] * 3]]
    assert blend(plain(RED), plain(BLUE), 0.6)[0, 0].tolist() == [102, 0, 153]
    assert darken_outside(plain((200, 100, 40), 1, 2), keep).tolist() == [[[200, 100, 40], [50, 25, 10]]]


@pytest.mark.parametrize(("height", "width"), [(10, 20), (20, 10), (2, 4), (1, 100)])
def test_a_picture_fits_into_a_square_with_its_aspect(height: int, width: int) -> None:
    page = fit_square(plain(RED, height, width), 40, ground=7)
    inside = (page == RED).all(2)
    assert page.shape == (40, 40, 3) and (page[~inside] == 7).all()
    rows, columns = inside.any(1).sum(), inside.any(0).sum()
    factor = 40 / max(height, width)
    assert (rows, columns) == (max(1, round(factor * height)), max(1, round(factor * width)))


def test_a_frame_covers_the_edge_alone() -> None:
    framed = add_frame(plain(RED, 8, 8), BLUE, width=2)
    assert (framed[2:-2, 2:-2] == RED).all() and (framed[:2] == BLUE).all() and (framed[:, -2:] == BLUE).all()


def test_tiles_stand_in_rows_below_their_captions() -> None:
    tiles = [("a", plain(RED)), ("b", plain(BLUE)), ("c", plain(RED))]
    page = tile_sheet(tiles, 2)
    assert page.shape == (2 * (4 + GAP + CAPTION) + GAP, 2 * (6 + GAP) + GAP, 3)
    second = page[GAP + CAPTION : GAP + CAPTION + 4, GAP + 6 + GAP : GAP + 6 + GAP + 6]
    third = page[GAP + 4 + GAP + 2 * CAPTION :][:4, GAP : GAP + 6]
    assert (second == BLUE).all() and (third == RED).all()
    assert (page[GAP : GAP + CAPTION, GAP : GAP + 6] < 128).any(), "a caption"


def test_a_png_is_saved_without_loss_or_an_error_is_told(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (np.asarray(Image.open(save_png(picture, tmp_path / "deep" / "a.png"))) == picture).all()
    (tmp_path / "b.png").mkdir()
    with pytest.raises(MachineError, match=r"b\.png"):
        save_png(picture, tmp_path / "b.png")
