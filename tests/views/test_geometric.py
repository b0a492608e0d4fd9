"""Crops: boxes as torchvision draws them, pixels as Pillow resizes them, the same by image and by batch."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision.transforms.v2 import RandomResizedCrop

from sslctl.views.geometric import SLOTS, TRIES, Interpolation, crop, crop_batch, crop_boxes, resize
from sslctl.views.keyed import uniforms

PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
GOLDEN = Path(__file__).parents[1] / "golden" / "pil_ops.safetensors"
SHAPES = [(1, 1), (1, 5000), (5000, 1), (2, 3), (7, 5), (32, 32), (375, 500), (500, 375), (40, 4000)]


def draws(n: int, epoch: int = 0) -> NDArray[np.float64]:
    return uniforms(0, epoch, np.arange(n), 0, SLOTS)


def reference_box(
    u: NDArray[np.float64], height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """RandomResizedCrop.get_params of torchvision, told one image at a time, with its draws taken from ``u``."""
    for k in range(TRIES):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * u[k])
        log = math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * u[TRIES + k]
        w, h = round(math.sqrt(area * math.exp(log))), round(math.sqrt(area / math.exp(log)))
        if 0 < w <= width and 0 < h <= height:
            return int(u[-2] * (height - h + 1)), int(u[-1] * (width - w + 1)), h, w
    if width / height < min(ratio):
        w, h = width, round(width / min(ratio))
    elif width / height > max(ratio):
        w, h = round(height * max(ratio)), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.05, 0.14), (1.0, 1.0)])
def test_boxes_are_torchvisions(height: int, width: int, scale: tuple[float, float]) -> None:
    u = draws(300)
    boxes = crop_boxes(u, height, width, scale)
    expected = [reference_box(row, height, width, scale, (3 / 4, 4 / 3)) for row in u]
    np.testing.assert_array_equal(boxes, expected)
    top, left, h, w = boxes.T
    assert (h >= 1).all() and (w >= 1).all()
    assert (top >= 0).all() and (top + h <= height).all() and (left >= 0).all() and (left + w <= width).all()


@pytest.mark.parametrize(("height", "width"), [(375, 500), (50, 400)])
def test_boxes_are_distributed_as_torchvisions(height: int, width: int) -> None:
    """Two-sample Kolmogorov-Smirnov tests of every column, with torchvision's own generator on the other side."""
    n = 3000
    torch.manual_seed(0)
    image, theirs = torch.empty(3, height, width), RandomResizedCrop(32, (0.1, 1.0))
    other = np.array([[theirs.make_params([image])[k] for k in ("top", "left", "height", "width")] for _ in range(n)])
    ours = crop_boxes(draws(n), height, width, (0.1, 1.0))
    for column in range(4):
        assert ks_2samp(ours[:, column], other[:, column]).pvalue > 1e-3


def test_views_of_different_scales_at_once() -> None:
    u = draws(2)
    scales = np.array([(0.4, 1.0), (0.05, 0.1)])
    ratios = np.array([(3 / 4, 4 / 3), (1.0, 1.0)])
    both = crop_boxes(u, 300, 200, scales, ratios)
    for k in range(2):
        np.testing.assert_array_equal(both[k], crop_boxes(u[k : k + 1], 300, 200, scales[k], ratios[k])[0])
    assert both[1, 2] == both[1, 3]


def pillow(image: NDArray[np.uint8], box: NDArray[np.int64], size: int, how: Interpolation) -> NDArray[np.int64]:
    """Across first, then down, as every Pillow before 13 resizes; Pillow 13 takes the steeper reduction first."""
    top, left, h, w = box.tolist()
    part = Image.fromarray(image).crop((left, top, left + w, top + h))
    whole = part.resize((size, h), PILLOW[how]).resize((size, size), PILLOW[how])
    return np.asarray(whole).transpose(2, 0, 1).astype(np.int64)


def check(ours: list[Tensor], theirs: list[NDArray[np.int64]], rarely: float = 2e-5) -> None:
    """Equal to one grey level; two, where a tie is rounded differently in both passes, for the share ``rarely``."""
    off = np.concatenate([np.abs(a.numpy() - b).ravel() for a, b in zip(ours, theirs, strict=True)])
    assert off.max() <= 2 and (off > 1).mean() <= rarely, f"{off.max()} levels, {(off > 1).mean():.1e} above one"


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [16, 96, 224])
def test_a_crop_is_pillows(photos: list[NDArray[np.uint8]], how: Interpolation, size: int) -> None:
    jobs = [(photo, box) for photo in photos for box in crop_boxes(draws(6), *photo.shape[:2], (0.05, 1.0))]
    ours = [crop(photo, box, size, how) for photo, box in jobs]
    assert all(x.dtype == torch.uint8 and x.is_contiguous() for x in ours)
    check(ours, [pillow(photo, box, size, how) for photo, box in jobs])


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [24, 64, 80])
def test_a_batch_is_pillows_and_the_crops(patches: NDArray[np.uint8], how: Interpolation, size: int) -> None:
    boxes = crop_boxes(draws(len(patches)), 64, 64, (0.08, 1.0))
    images = torch.from_numpy(patches).permute(0, 3, 1, 2)
    batch = crop_batch(images, torch.from_numpy(boxes), torch.zeros(len(patches)), size, how)
    assert torch.equal(batch, batch.round())
    jobs = list(zip(patches, boxes, strict=True))
    check(list(batch), [pillow(image, box, size, how) for image, box in jobs])
    check(list(batch), [crop(image, box, size, how).numpy().astype(np.int64) for image, box in jobs])


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
def test_extremes_stay_in_range(how: Interpolation) -> None:
    """Black and white noise makes a cubic overshoot as far as it can: clamped between the passes as well."""
    noise = np.random.default_rng(0).integers(0, 2, (40, 32, 32, 3)).astype(np.uint8) * 255
    boxes = crop_boxes(draws(40), 32, 32, (0.2, 1.0))
    batch = crop_batch(torch.from_numpy(noise).permute(0, 3, 1, 2), torch.from_numpy(boxes), torch.zeros(40), 20, how)
    jobs = list(zip(noise, boxes, strict=True))
    check(list(batch), [crop(image, box, 20, how).numpy().astype(np.int64) for image, box in jobs], rarely=1e-4)
    check(list(batch), [pillow(image, box, 20, how) for image, box in jobs], rarely=1e-4)


def test_a_flip_mirrors_the_crop(patches: NDArray[np.uint8]) -> None:
    boxes = torch.from_numpy(crop_boxes(draws(8), 64, 64, (0.2, 0.8)))
    images = torch.from_numpy(patches[:8]).permute(0, 3, 1, 2)
    straight = crop_batch(images, boxes, torch.zeros(8), 33, "bicubic")
    flipped = crop_batch(images, boxes, torch.tensor([0, 1] * 4), 33, "bicubic")
    torch.testing.assert_close(flipped[::2], straight[::2], atol=0, rtol=0)
    assert (flipped[1::2] - straight[1::2].flip(-1)).abs().max() <= 1
    assert (flipped[1::2] - straight[1::2]).abs().max() > 20


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
def test_golden_crops(how: Interpolation) -> None:
    golden = load_file(GOLDEN)
    box = np.array([2, 1, 7, 8])
    expected = golden[f"resized_crop_{how}"].transpose(2, 0, 1).astype(np.int64)
    check([crop(golden["img"], box, 6, how)], [expected])
    images = torch.from_numpy(golden["img"]).permute(2, 0, 1)[None]
    check([crop_batch(images, torch.from_numpy(box)[None], torch.zeros(1), 6, how)[0]], [expected])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1), (2, 3), (3000, 2)])
@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
def test_thin_and_tiny_images(height: int, width: int, how: Interpolation) -> None:
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    boxes = crop_boxes(draws(4), height, width, (0.08, 1.0))
    images = torch.from_numpy(image).permute(2, 0, 1)[None].expand(4, -1, -1, -1)
    batch = crop_batch(images, torch.from_numpy(boxes), torch.zeros(4), 32, how)
    expected = [pillow(image, box, 32, how) for box in boxes]
    check([crop(image, box, 32, how) for box in boxes], expected, rarely=1e-3)
    check(list(batch), expected, rarely=1e-3)


def test_read_only_and_strided_images(photos: list[NDArray[np.uint8]]) -> None:
    frozen = photos[2].copy()
    frozen.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = resize(frozen, 40, 30, "bilinear")
    assert torch.equal(ours, resize(photos[2], 40, 30, "bilinear"))
    assert torch.equal(resize(frozen[:, ::-1], 40, 30, "bilinear"), resize(frozen[:, ::-1].copy(), 40, 30, "bilinear"))
    assert (frozen == photos[2]).all()
