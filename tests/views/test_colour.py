"""Colour operations against those of Pillow and torchvision, image by image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file
from torch import Tensor
from torchvision.transforms import functional as F1
from torchvision.transforms.v2 import functional as F2

from sslctl.views import colour
from sslctl.views import photometric as ours
from sslctl.views.keyed import uniforms
from sslctl.views.recipe import ViewSpec

from .levels import Levels, by_pillow, levels, numbers

GOLDEN = Path(__file__).parents[1] / "golden" / "pil_ops.safetensors"


BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def one(x: Tensor, operation: int, factors: NDArray[np.float32]) -> Tensor:
    return colour.blend(x, np.full(len(x), operation), factors)


@pytest.mark.parametrize(
    ("operation", "reference"),
    [(BRIGHTNESS, F1.adjust_brightness), (CONTRAST, F1.adjust_contrast), (SATURATION, F1.adjust_saturation)],
)
def test_blends_are_pillows_to_one_level(
    patches: Levels, operation: int, reference: Callable[[Image.Image, float], Image.Image]
) -> None:
    """As whole levels the way Pillow makes them, which cuts fractions off."""
    factors = numbers(0, 2, len(patches))
    expected = by_pillow(patches, lambda x, i: reference(x, float(factors[i])))
    assert (one(levels(patches), operation, factors).floor() - expected).abs().max() <= 1


def test_blends_differ_by_image_in_one_call(patches: Levels) -> None:
    """Brightness, contrast and saturation side by side give what each gives alone."""
    which = np.arange(len(patches)) % 3
    factors = numbers(0.2, 1.8, len(patches))
    mixed = colour.blend(levels(patches), which, factors)
    for operation in range(3):
        alone = one(levels(patches), operation, factors)
        torch.testing.assert_close(mixed[which == operation], alone[which == operation], atol=1e-3, rtol=0)


def test_hue_is_torchvisions(patches: Levels) -> None:
    turns = numbers(-0.5, 0.5, len(patches))
    x = levels(patches)
    expected = torch.stack([F2.adjust_hue(image / 255, float(t)) * 255 for image, t in zip(x, turns, strict=True)])
    torch.testing.assert_close(colour.shift_hue(x.clone(), turns), expected, atol=0.01, rtol=0)


def test_hue_against_pillows_coarse_hsv(patches: Levels) -> None:
    """Pillow has 256 hues: one step is six levels of a channel, and both the image's hue and the turn are rounded."""
    turns = numbers(-0.2, 0.2, len(patches))
    expected = by_pillow(patches, lambda x, i: F1.adjust_hue(x, float(turns[i])))
    off = (colour.shift_hue(levels(patches), turns) - expected).abs()
    assert off.mean() < 0.5 and off.max() <= 12.5


def test_hue_of_pure_colours_and_greys() -> None:
    """A third of a turn takes red to green to blue; grey, black and white stay."""
    corners = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90], [0, 0, 0], [255, 255, 255]]).float()
    x = corners[:, :, None, None].clone()
    turned = colour.shift_hue(x, np.full(6, 1 / 3, np.float32))[:, :, 0, 0]
    torch.testing.assert_close(turned, corners[[1, 2, 0, 3, 4, 5]], atol=1e-3, rtol=0)


def test_grayscale_is_pillows_to_one_level(patches: Levels) -> None:
    expected = by_pillow(patches, lambda x, i: x.convert("L").convert("RGB"))
    gray = colour.luma(levels(patches))
    assert gray.shape == (len(patches), 1, 64, 64)
    assert (gray - expected).abs().max() <= 1


def in_order(image: Tensor, factors: NDArray[np.float32], order: NDArray[np.int64]) -> Tensor:
    """ColorJitter of torchvision on one float image, its four operations one after the other."""
    change = [F2.adjust_brightness, F2.adjust_contrast, F2.adjust_saturation, F2.adjust_hue]
    x = image / 255
    for operation in order.tolist():
        x = change[operation](x, float(factors[operation]))
    return x * 255


def test_jitter_is_torchvisions_in_each_images_order(patches: Levels) -> None:
    """All 24 orders, twice; torchvision's luma has 0.2989 for red, which moves a level by 0.03 an operation."""
    view = ViewSpec(jitter=(0.8, 0.8, 0.8, 0.2), jitter_p=1.0)
    u = uniforms(0, 0, np.arange(48), 0, ours.SLOTS)
    u[:, 6] = (np.arange(48) % 24 + 0.5) / 24
    draws = ours.draw(view, u)
    assert len(np.unique(draws.order, axis=0)) == 24
    x = levels(patches)
    expected = torch.stack([in_order(*one) for one in zip(x, draws.factors, draws.order, strict=True)])
    out = colour.jitter(x.clone(), draws.factors, draws.order)
    torch.testing.assert_close(out, expected, atol=0.2, rtol=0)
    rows = ours.batching_order(draws)
    again = colour.jitter(x[rows], draws.factors[rows], draws.order[rows])
    torch.testing.assert_close(again, out[rows], atol=1e-3, rtol=0)


def test_orders_matter(patches: Levels) -> None:
    factors = np.array([[1.6, 0.4, 1.8, 0.3]], np.float32)
    x = levels(patches[:1])
    first = colour.jitter(x.clone(), factors, np.array([[0, 1, 2, 3]]))
    second = colour.jitter(x.clone(), factors, np.array([[3, 2, 1, 0]]))
    assert (first - second).abs().mean() > 5


def jittered(x: Tensor, jitter: tuple[float, float, float, float], how: Literal["exact", "matrix"]) -> Tensor:
    view = ViewSpec(jitter=jitter, jitter_p=0.9, grayscale_p=0.2, blur_p=0, colour=how)
    draws = ours.draw(view, uniforms(0, 0, np.arange(len(x)), 0, ours.SLOTS))
    return ours.apply(x.clone(), view, draws)


def test_one_matrix_is_the_same_where_nothing_is_clamped(patches: Levels) -> None:
    """Brightness, contrast, saturation and greying in each image's order; hue aside."""
    x = 90 + levels(patches) * 0.2
    strong = (0.5, 0.5, 0.5, 0.0)
    torch.testing.assert_close(jittered(x, strong, "matrix"), jittered(x, strong, "exact"), atol=1e-3, rtol=0)
    assert (jittered(x, strong, "matrix") - x).abs().mean() > 5


def test_one_matrix_turns_hue_about_grey() -> None:
    """A third of a turn takes red to green to blue, as in HSV; greys stay; what lies between is close."""
    corners = torch.tensor([[200, 0, 0], [0, 200, 0], [0, 0, 200], [90, 90, 90], [160, 120, 100]]).float()
    turn = np.tile(np.array([1, 1, 1, 1 / 3], np.float32), (5, 1))
    order, yes = np.tile(np.arange(4), (5, 1)), np.ones(5, bool)
    out = colour.recolour(corners[:, :, None, None], *colour.colour_matrix(turn, order, yes, ~yes))[:, :, 0, 0]
    torch.testing.assert_close(out[:4], corners[[1, 2, 0, 3]], atol=1e-3, rtol=0)
    torch.testing.assert_close(out[4], corners[4].roll(1), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("jitter", "mean", "share"), [((0.4, 0.4, 0.2, 0.1), 4.5, 0.02), ((0.8, 0.8, 0.8, 0.2), 6, 0.05)]
)
def test_one_matrix_is_as_close_as_the_documentation_says(
    photos: list[Levels], jitter: tuple[float, float, float, float], mean: float, share: float
) -> None:
    corners = [(photo, y, x) for photo in photos[:2] for y in range(0, 300, 48) for x in range(0, 500, 48)]
    tiles = np.stack([photo[y : y + 96, x : x + 96] for photo, y, x in corners])
    exact, matrix = (jittered(levels(tiles), jitter, how) for how in ("exact", "matrix"))  # type: ignore[arg-type]
    off = (exact - matrix).abs()
    assert off.mean() < mean and (off > 25.5).float().mean() < share
    assert (exact - levels(tiles)).abs().mean() > 5 * off.mean(), "close, measured by what jitter changes"


GOLDENS: list[tuple[str, float, Callable[[Tensor], Tensor]]] = [
    ("grayscale3", 1, lambda x: colour.luma(x).expand_as(x)),
    ("brightness_1.4", 1, lambda x: one(x, BRIGHTNESS, numbers(1.4, 1.4, 1))),
    ("contrast_0.6", 1, lambda x: one(x, CONTRAST, numbers(0.6, 0.6, 1))),
    ("saturation_1.2", 1, lambda x: one(x, SATURATION, numbers(1.2, 1.2, 1))),
    ("hue_0.1", 12.5, lambda x: colour.shift_hue(x, numbers(0.1, 0.1, 1))),  # Pillow has 256 hues: see above
]


@pytest.mark.parametrize(("name", "within", "change"), GOLDENS, ids=[name for name, *_ in GOLDENS])
def test_golden(name: str, within: float, change: Callable[[Tensor], Tensor]) -> None:
    golden = load_file(GOLDEN)
    off = (change(levels(golden["img"][None])) - levels(golden[name][None])).abs()
    assert off.max() <= within
