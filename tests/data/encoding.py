"""Images as bytes, also of kinds that Pillow does not write."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib

import numpy as np
from PIL import Image

from sslctl.data.decode import Pixels, decode_file


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def decode_bytes(data: bytes, at_least: int | None = None) -> Pixels:
    """What ``decode_file`` makes of a file with that content."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return decode_file(file.name, at_least)


def png(pixels: np.ndarray, kind: int, depth: int = 16) -> bytes:
    """A PNG written by hand: Pillow cannot write 16-bit colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
