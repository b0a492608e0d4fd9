"""What is refused and why: broken, truncated, huge or foreign files, and whatever mutation makes of good ones."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslctl.data.decode import BadImage, decode_file, header_size

from .encoding import decode_bytes, encode, png

RGB = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def bomb(width: int, height: int) -> bytes:
    """A 1-bit PNG of many pixels in few bytes."""
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_known_range_are_refused(mode: str) -> None:
    image = Image.fromarray(np.linspace(0, 1, 12).reshape(3, 4).astype(np.float32 if mode == "F" else np.int32))
    assert image.mode == mode
    with pytest.raises(BadImage, match="float pixels" if mode == "F" else "32-bit grey"):
        decode_bytes(encode(image, "TIFF"))


@pytest.mark.parametrize("side", [10_000, 15_000, 40_000])
def test_bombs_are_refused_from_the_header(side: int) -> None:
    """Decoding the one pixel that there is would say: truncated."""
    data = png(np.zeros((1, 1), np.uint8), 0, 8)
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    data = data[:16] + header + crc + data[33:]

    with pytest.raises(BadImage, match="megapixels"):
        decode_bytes(data)


def test_a_real_bomb_and_a_large_image() -> None:
    data = bomb(10_000, 10_000)
    assert len(data) < 20_000
    with pytest.raises(BadImage, match="10000x10000 is 100 megapixels, more than 64"):
        decode_bytes(data)
    assert decode_bytes(bomb(8192, 1024)).shape == (1024, 8192, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"<html><body>404</body></html>", "starts with '<html><body>'"),
        (b"\n\n  <!DOCTYPE html>", "starts with '<!DOCTYPE ht'"),
        (bytes(500), "starts with zeros"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"\x00\x01\x02binary", r"starts with '\\x00\\x01"),
    ],
)
def test_what_is_no_image_says_what_it_is(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(BadImage) as caught:
        decode_file(str(path))
    assert reason.replace(r"\\", "\\") in caught.value.reason


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "JPEG2000"])
def test_truncated_files_are_refused(format: str) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), format)
    with pytest.raises(BadImage) as caught:
        decode_bytes(data[: len(data) * 2 // 3])
    assert caught.value.reason


def test_the_wrong_extension_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "really.jpg"
    path.write_bytes(encode(Image.fromarray(RGB)))
    assert np.array_equal(decode_file(str(path)), RGB)
    assert header_size(str(path)) == (7, 5)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="No such file"):
        decode_file(str(tmp_path / "gone.png"))
    with pytest.raises(BadImage, match="not a regular file"):
        decode_file(str(tmp_path))
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadImage, match="not a regular file"):
        decode_file(str(tmp_path / "pipe.png"))
    with pytest.raises(BadImage, match="null"):
        decode_file("a\0b.png")


def test_formats_that_run_programs_are_not_opened() -> None:
    with pytest.raises(BadImage, match="not an image"):
        decode_bytes(encode(Image.fromarray(RGB), "EPS"))


def test_a_bad_image_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(BadImage("0 bytes", "a.png")))
    assert (error.reason, error.message, error.exit_code) == ("0 bytes", "a.png: 0 bytes", 3)


FUZZ = """
import io, pathlib, random, sys
import numpy as np
import simplejpeg
from PIL import Image
from sslctl.data.decode import BadImage, decode_file
path = pathlib.Path(sys.argv[1])
def decode_bytes(data):
    path.write_bytes(data)
    return decode_file(str(path))
good = bad = 0
file = io.BytesIO()
Image.new("1", (10000, 10000)).save(file, "PNG")
try:
    decode_bytes(file.getvalue())
except BadImage:
    bad += 1
image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
for format in ("PNG", "palette", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "TGA", "QOI"):
    file = io.BytesIO()
    (image.quantize(16) if format == "palette" else image).save(file, "PNG" if format == "palette" else format)
    rng = random.Random(format)
    for _ in range(60):
        data = bytearray(file.getvalue())
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        del data[rng.randrange(len(data) // 2, 2 * len(data)) :]
        try:
            pixels = decode_bytes(bytes(data))
            assert pixels.ndim == 3 and pixels.dtype == np.uint8
            good += 1
        except BadImage as e:
            assert e.reason
            bad += 1
print(good, bad)
"""


def test_no_mutation_does_more_than_make_a_bad_image(tmp_path: Path) -> None:
    """In a process of its own, because a decoder that crashes takes its process along."""
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(tmp_path / "a")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # Pillow's warnings would land in the midst of the progress display
    good, bad = map(int, done.stdout.split())
    assert good > 50 and bad > 50
