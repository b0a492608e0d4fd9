"""Evaluation's view of an image: torchvision's resize and centre crop, the same alone and in a batch."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from sslctl.views.evaluation import EvalTransform, resize_by_matrices
from sslctl.views.geometric import resize
from sslctl.views.recipe import IMAGENET_MEAN, IMAGENET_STD

Images = NDArray[np.uint8]
NONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("size", "crop"), [(224, 0.875), (160, 0.875), (96, 1.0), (65, 0.9)])
def test_is_torchvisions(photos: list[Images], size: int, crop: float) -> None:
    theirs = v2.Compose(
        [v2.Resize(int(size / crop), v2.InterpolationMode.BICUBIC), v2.CenterCrop(size), v2.PILToTensor()]
    )
    for photo in photos:
        ours = EvalTransform(size, *NONE, crop)(photo) * 255
        assert ours.shape == (3, size, size) and ours.dtype == torch.float32
        off = (ours - theirs(Image.fromarray(photo))).abs()
        assert off.mean() < 0.05 and off.max() < 8.5  # Pillow 13 resizes downwards first where that is steeper


def test_normalises(photos: list[Images]) -> None:
    plain = EvalTransform(96, *NONE)(photos[0])
    ours = EvalTransform(96, IMAGENET_MEAN, IMAGENET_STD)(photos[0])
    for c in range(3):
        torch.testing.assert_close(ours[c], (plain[c] - IMAGENET_MEAN[c]) / IMAGENET_STD[c], atol=1e-5, rtol=0)


def test_nothing_is_cut_off_small_images(patches: Images) -> None:
    small = EvalTransform(32, *NONE)(patches[0])
    torch.testing.assert_close(small * 255, resize(patches[0], 32, 32, "bicubic").float())
    same = EvalTransform(63, *NONE)(patches[0, :63, :63])
    torch.testing.assert_close(same * 255, torch.from_numpy(patches[0, :63, :63].copy()).permute(2, 0, 1).float())
    long = EvalTransform(32, *NONE)(patches[0, :32])  # 32 x 64: the middle
    torch.testing.assert_close(long * 255, torch.from_numpy(patches[0, :32, 16:48].copy()).permute(2, 0, 1).float())


@pytest.mark.parametrize("size", [24, 64, 80])
def test_a_batch_is_its_images(patches: Images, size: int) -> None:
    transform = EvalTransform(size, IMAGENET_MEAN, IMAGENET_STD)
    images = torch.from_numpy(patches).permute(0, 3, 1, 2)
    alone = torch.stack([transform(image) for image in patches])
    assert torch.equal(transform.batch(images), alone)
    assert torch.equal(transform.batch(images.contiguous()), alone)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (73, 91), (64, 20)])
def test_other_devices_way_is_within_one_level(patches: Images, height: int, width: int) -> None:
    """Products with resize matrices, here on the CPU too."""
    images = torch.from_numpy(patches).permute(0, 3, 1, 2)
    expected = torch.stack([resize(image, height, width, "bicubic") for image in patches])
    off = (resize_by_matrices(images, height, width) - expected.float()).abs()
    assert off.max() <= 2 and (off > 1).float().mean() < 2e-5


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 900), (900, 1), (3, 2)])
@pytest.mark.parametrize("size", [32, 96])
def test_thin_and_tiny_images(height: int, width: int, size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = EvalTransform(size, *NONE)(image)
    assert out.shape == (3, size, size) and out.min() >= 0 and out.max() <= 1


def test_read_only_images(photos: list[Images]) -> None:
    frozen = photos[0].copy()
    frozen.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = EvalTransform(96, *NONE)(frozen)
    assert torch.equal(out, EvalTransform(96, *NONE)(photos[0]))
