"""The code on a card, run as it stands: images are prepared as evaluation prepares them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from sslctl.exchange.exports.snippets import encode, joined, prepare
from sslctl.runs.meta import ImageSpec

IMAGE = ImageSpec(size=96, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"np": np, "torch": torch, "Image": Image, "ImageOps": ImageOps}
    exec(code, names)
    return names


@pytest.mark.parametrize("image", [IMAGE, IMAGE.model_copy(update={"size": 32})], ids=["large", "small"])
@pytest.mark.parametrize("shape", [(427, 640), (300, 300), (120, 90)])
def test_images_are_prepared_as_evaluation_prepares_them(image: ImageSpec, shape: tuple[int, int]) -> None:
    photo = load_sample_image("china.jpg")[: shape[0], : shape[1]]
    x = run(prepare(image))["prepare"](Image.fromarray(photo))
    ours = image.transform()(photo)
    assert x.shape == ours.shape == (3, image.size, image.size) and x.dtype == torch.float32
    off = (x - ours).abs() * torch.tensor(image.std)[:, None, None] * 255
    assert off.max() < 3 and off.mean() < 0.2, "grey levels by which Pillow rounds otherwise"


def test_raw_pixels_and_arrays_of_numpy() -> None:
    photo = Image.fromarray(load_sample_image("flower.jpg"))
    raw = run(prepare(IMAGE, "numpy", raw=True))["prepare"](photo)
    plain = run(prepare(IMAGE, "numpy"))["prepare"](photo)
    assert raw.dtype == np.uint8 and raw.shape == (96, 96, 3) and isinstance(plain, np.ndarray)
    expected = (raw / 255 - np.array(IMAGE.mean)) / np.array(IMAGE.std)
    np.testing.assert_allclose(plain, expected.transpose(2, 0, 1), rtol=1e-5, atol=1e-5)


def test_rotation_and_alpha_of_a_file_are_applied() -> None:
    photo = Image.fromarray(load_sample_image("china.jpg")).convert("RGBA")
    photo.getexif()[0x0112] = 6
    turned = run(prepare(IMAGE))["prepare"](photo)
    upright = run(prepare(IMAGE))["prepare"](photo.convert("RGB").transpose(Image.Transpose.ROTATE_270))
    assert torch.equal(turned, upright)


def test_the_parts_make_one_program() -> None:
    code = joined("net = lambda x: x * 2\n", prepare(IMAGE), encode("net(x)", "(B, 3)"))
    names = run(code)
    assert names["encode"](torch.ones(1)).tolist() == [2]
    assert code.endswith('# features = encode(prepare(Image.open("photo.jpg"))[None])\n') and "\n\n\n\n" not in code
