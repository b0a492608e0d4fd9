"""One image file → uint8 (H, W, 3) RGB, the same for training, evaluation and export; or BadImage with the reason."""

from __future__ import annotations

import os
import stat
import warnings
from functools import cache
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..errors import DataError

Pixels = NDArray[np.uint8]

MAX_PIXELS = 64 << 20
"""Larger images are refused from their header: a 12 kB file can claim gigabytes."""

_NAMES = """apng avif avifs bmp dib gif j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx mpo pbm pgm png pnm ppm qoi tga tif
tiff webp"""
EXTENSIONS = frozenset(f".{name}" for name in _NAMES.split())

# What those names promise. Others stay out: EPS would start Ghostscript, FITS and HDF5 are no pictures.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "DIB", "MPO", "JPEG2000", "PPM", "QOI", "TGA")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112

# Pillow warns of half-broken metadata and of sizes that our own cap refuses anyway; what matters becomes BadImage.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class BadImage(DataError):
    """An image that cannot be used; ``reason`` says why, the message also which."""

    def __init__(self, reason: str, name: str = "") -> None:
        super().__init__(f"{name}: {reason}" if name else reason, "leave the file out or replace it")
        self.reason = reason


def decode_file(path: str, at_least: int | None = None) -> Pixels:
    """Decode the image in ``path`` to uint8 (H, W, 3) RGB.

    The EXIF orientation is applied. Alpha is dropped, not composited: the colours below it stay, as training tools
    and timm read them. Grey of 16 bits is scaled to 8, animations give their first frame, colour profiles are ignored.
    With ``at_least`` a JPEG is decoded at 1/2, 1/4 or 1/8, as small as its shorter side has that many px: libjpeg then
    averages squares of pixels, in a fraction of the time. The array may be read-only. Raises BadImage: not a regular
    file, no image, truncated or corrupt, more than 64 megapixels, float or 32-bit grey.
    """
    with _open(path) as file:
        return _decode(file, at_least)


def header_size(path: str) -> tuple[int, int]:
    """Return (width, height) from the header alone, before any EXIF rotation. Raises BadImage."""
    with _open(path) as file:
        return _header(file).size


def _open(path: str) -> IO[bytes]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a FIFO would wait for ever
            raise BadImage("not a regular file")
        return open(path, "rb")
    except OSError as e:
        raise BadImage(f"cannot be opened: {e.strerror}") from e
    except ValueError as e:  # a NUL in the name
        raise BadImage(f"cannot be opened: {e}") from e


def _decode(file: IO[bytes], at_least: int | None) -> Pixels:
    image = _header(file)
    try:
        whole = image.size
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        pixels = by_simplejpeg(image, file) if image.size == whole else None
        if pixels is None:
            image.load()
        turn = _TURNS.get(_orientation(image))  # after load: TIFF has turned itself by then
        if pixels is None:
            image = to_rgb(image)
        elif turn is None:
            return pixels
        else:
            image = Image.fromarray(pixels)
        return np.asarray(image if turn is None else image.transpose(turn))
    except BadImage:
        raise
    except Exception as e:  # a corrupt file raises whatever its decoder stumbles over
        raise BadImage(_broken(e)) from e


def by_simplejpeg(image: Image.Image, file: IO[bytes]) -> Pixels | None:
    """Decode a JPEG's stored pixels by simplejpeg if installed: Pillow's bits in two thirds of its time.

    Both hand the file to libjpeg-turbo, but Pillow goes through rows of four bytes a pixel. None for all else, and for
    whatever is not in perfect order, which Pillow then decides on.
    """
    if image.format != "JPEG" or image.mode != "RGB" or (simplejpeg := _simplejpeg()) is None:
        return None
    file.seek(0)
    data = file.read()
    room = np.empty((image.height, image.width, 3), np.uint8)  # as the header checked here has it, and no larger
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=room)
    except ValueError:
        return None
    return pixels if pixels.shape == room.shape else None


@cache
def _simplejpeg() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def _header(file: IO[bytes]) -> Image.Image:
    try:
        image = Image.open(file, formats=_formats())
    except UnidentifiedImageError as e:
        raise BadImage(_not_an_image(file)) from e
    except Image.DecompressionBombError as e:
        raise BadImage("more than 64 megapixels") from e
    except Exception as e:  # so does opening one
        raise BadImage(_broken(e)) from e
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadImage(f"{width}x{height} is {width * height / 1e6:.0f} megapixels, more than 64")
    if width * height == 0:
        raise BadImage(f"{width}x{height} pixels")
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # metadata can be broken where the pixels are not
        return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Return ``image`` as RGB, whatever its mode. Raises BadImage for float and 32-bit grey pixels."""
    mode = image.mode
    if mode == "RGB":
        return image
    if mode == "F":
        raise BadImage("float pixels, whose range no header tells; save it with 8 or 16 bits")
    if mode == "I" and image.format not in ("PNG", "PPM"):  # those two open 16 bits as mode I
        raise BadImage("32-bit grey, whose range no header tells; save it with 8 or 16 bits")
    if mode.startswith("I"):
        wide = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")  # rounds v / 257
    if mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


@cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _broken(e: Exception) -> str:
    if isinstance(e, OSError) and e.strerror:
        return f"cannot be read: {e.strerror}"
    if isinstance(e, MemoryError):
        return "out of memory while decoding"
    return f"truncated or corrupt: {e or type(e).__name__}"


def _not_an_image(file: IO[bytes]) -> str:
    file.seek(0)
    head = file.read(64)
    if not head:
        return "not an image: 0 bytes"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image itself; run git lfs pull"
    if not any(head):
        return "not an image: starts with zeros"
    return f"not an image that can be read: starts with {head.lstrip()[:12].decode('ascii', 'backslashreplace')!r}"
