"""Decoding: files of every kind that Pillow writes come out as the pixels they mean, or are refused with the reason."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from sslctl.data.decode import by_simplejpeg

from .encoding import decode_bytes, encode, png

RGB = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RGB[..., 0]
ALPHA = np.random.default_rng(2).integers(0, 256, (5, 7), dtype=np.uint8)


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "PPM", "TGA", "QOI"])
def test_exact_formats_give_the_exact_pixels(format: str) -> None:
    source = RGB // 51 * 51  # few enough colours for GIF
    assert np.array_equal(decode_bytes(encode(Image.fromarray(source), format)), source)


@pytest.mark.parametrize("options", [("WEBP", {"lossless": True}), ("JPEG2000", {"irreversible": False})])
def test_lossless_modes_of_lossy_formats_are_exact(options: tuple[str, dict[str, object]]) -> None:
    assert np.array_equal(decode_bytes(encode(Image.fromarray(RGB), options[0], **options[1])), RGB)


@pytest.mark.parametrize("format", ["JPEG", "AVIF"])
def test_lossy_formats_come_close(format: str) -> None:
    smooth = np.linspace(0, 255, 64 * 48 * 3).reshape(48, 64, 3).astype(np.uint8)
    decoded = decode_bytes(encode(Image.fromarray(smooth), format, quality=95))
    assert decoded.shape == smooth.shape
    assert np.abs(decoded.astype(int) - smooth).mean() < 3


def test_grey_of_1_8_and_16_bits() -> None:
    assert np.array_equal(decode_bytes(encode(Image.fromarray(GREY))), three(GREY))
    bits = Image.fromarray(GREY > 127)
    assert bits.mode == "1"
    assert np.array_equal(decode_bytes(encode(bits)), three(np.where(GREY > 127, 255, 0)))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(format: str) -> None:
    wide = np.linspace(0, 65535, 16 * 16).round().astype(np.uint16).reshape(16, 16)
    decoded = decode_bytes(encode(Image.fromarray(wide), format))
    assert np.array_equal(decoded, three(np.round(wide / 257).astype(np.uint8)))
    assert decoded.min() == 0 and decoded.max() == 255


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_16_bit_colour_keeps_its_high_byte(kind: int, channels: int) -> None:
    wide = np.random.default_rng(3).integers(0, 65536, (5, 7, channels))
    decoded = decode_bytes(png(wide, kind)).astype(int)
    colour = wide[..., :3] if channels > 2 else np.repeat(wide[..., :1], 3, axis=2)
    assert np.abs(decoded - colour / 257).max() <= 1


def test_alpha_is_dropped_not_composited() -> None:
    rgba = np.dstack([RGB, ALPHA])
    assert np.array_equal(decode_bytes(encode(Image.fromarray(rgba))), RGB)
    grey_alpha = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    assert np.array_equal(decode_bytes(encode(grey_alpha)), three(GREY))


@pytest.mark.parametrize("transparency", [None, 1, bytes([0, 128, 255, 10])])
def test_palette_with_and_without_transparency(transparency: int | bytes | None) -> None:
    indices = np.random.default_rng(4).integers(0, 4, (5, 7), dtype=np.uint8)
    palette = np.array([[255, 0, 0], [0, 250, 0], [0, 0, 245], [9, 99, 199]], np.uint8)
    image = Image.frombytes("P", (7, 5), indices.tobytes())
    image.putpalette(palette.ravel().tolist())
    options = {} if transparency is None else {"transparency": transparency}
    assert np.array_equal(decode_bytes(encode(image, **options)), palette[indices])


def test_cmyk() -> None:
    cmyk = Image.fromarray(RGB).convert("CMYK")
    assert np.array_equal(decode_bytes(encode(cmyk, "TIFF")), RGB)
    flat = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red = decode_bytes(encode(flat, "JPEG", quality=100))
    assert np.abs(red.astype(int) - [255, 0, 0]).max() < 6


def test_animations_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (6, 4), color) for color in ((255, 0, 0), (0, 255, 0))]
    for format in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert np.array_equal(decode_bytes(data), np.broadcast_to(np.array([255, 0, 0], np.uint8), (4, 6, 3)))


# How each orientation's stored rows and columns follow from the upright image (EXIF 2.32, tag 0x0112).
STORED = {
    1: lambda up: up,
    2: lambda up: up[:, ::-1],
    3: lambda up: up[::-1, ::-1],
    4: lambda up: up[::-1],
    5: lambda up: up.swapaxes(0, 1),
    6: lambda up: np.rot90(up, 1),
    7: lambda up: up[::-1, ::-1].swapaxes(0, 1),
    8: lambda up: np.rot90(up, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](RGB)))
    options = {"lossless": True} if format == "WEBP" else {}
    assert np.array_equal(decode_bytes(encode(stored, format, exif=exif, **options)), RGB)


def test_exif_orientation_of_a_jpeg_and_of_grey() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    up = np.zeros((32, 64), np.uint8)
    up[:, 40:] = 200
    stored = Image.fromarray(np.ascontiguousarray(STORED[6](up)))
    decoded = decode_bytes(encode(stored, "JPEG", quality=100, exif=exif))
    assert decoded.shape == (32, 64, 3)
    assert np.abs(decoded.astype(int) - three(up)).max() < 5


def test_broken_metadata_does_not_cost_the_image() -> None:
    data = encode(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(decode_bytes(data), RGB)


JPEGS: list[dict[str, object]] = [
    {"subsampling": 0},
    {"subsampling": 1, "progressive": True},
    {"subsampling": 2, "quality": 20},
    {"subsampling": 0, "keep_rgb": True},
    {"subsampling": 2, "restart_marker_blocks": 3},
]


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("size", [(1, 1), (33, 47), (200, 130)])
def test_simplejpeg_changes_no_bit(options: dict[str, object], size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    china = Image.fromarray(load_sample_image("china.jpg"))
    data = encode(china.crop((100, 50, 100 + size[0], 50 + size[1])), "JPEG", exif=exif, **options)
    by_pillow = Image.open(io.BytesIO(data))
    fast = by_simplejpeg(by_pillow, io.BytesIO(data))
    assert fast is not None and np.array_equal(fast, np.asarray(by_pillow))
    assert np.array_equal(decode_bytes(data), np.asarray(ImageOps.exif_transpose(by_pillow)))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_thin_images(size: tuple[int, int]) -> None:
    assert decode_bytes(encode(Image.new("RGB", size, (1, 2, 3)))).shape == (size[1], size[0], 3)
