"""The outlines of the demo set: within their square, each of its own form, varying where they may."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sslctl.data.demo_outlines import SHAPES


def drawn(name: str, u: float = 0.5, v: float = 0.5) -> np.ndarray:
    """The shape by Pillow's polygons, bool (64, 64), from -1.25 to 1.25."""
    image = Image.new("1", (64, 64))
    draw = ImageDraw.Draw(image)
    for fills, points in SHAPES[name](u, v):
        draw.polygon([tuple(p) for p in (np.asarray(points) / 2.5 + 0.5) * 64], fill=int(fills))
    return np.asarray(image)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_stays_in_its_square_and_fills_part_of_it(name: str) -> None:
    for u in (0.0, 0.999):
        strokes = SHAPES[name](u, u)
        assert strokes[0][0], "the first polygon fills"
        assert max(np.abs(points).max() for fills, points in strokes if fills) <= 1.15
        assert 0.08 < drawn(name, u, u).mean() < 0.6


def test_no_two_shapes_are_alike() -> None:
    names = list(SHAPES)
    assert len(names) == 16 and names == sorted(names)
    masks = np.stack([drawn(name) for name in names]).reshape(16, -1)
    both = (masks[:, None] & masks).sum(-1) / (masks[:, None] | masks).sum(-1)
    np.fill_diagonal(both, 0)
    assert both.max() < 0.85


def test_what_erases_leaves_a_hole() -> None:
    assert not drawn("ring")[32, 32] and drawn("disk")[32, 32]


@pytest.mark.parametrize("name", ["ring", "cross", "moon", "arrow", "house", "star"])
def test_some_shapes_vary(name: str) -> None:
    assert (drawn(name, 0, 0) != drawn(name, 0.999, 0.999)).mean() > 0.01
