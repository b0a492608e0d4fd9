"""Maps of videos, one frame in memory at a time: animations by Pillow, films by ffmpeg if it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from PIL import Image

from ...backbones import Backbone
from ...data.decode import MAX_PIXELS, BadImage
from ...errors import DataError, MachineError
from ...files import replacing
from ..paint import Picture, blend, colour, save_png
from .attention import MapOptions, attention_maps

FILMS = frozenset(".avi .m4v .mkv .mov .mp4 .mpeg .mpg .webm .wmv".split())
ANIMATIONS = frozenset(".apng .gif .png .webp".split())
RATE = 25.0  # frames a second if the file states none
HINT = "install ffmpeg, or pip install 'sslctl[video]'"


def is_video(path: Path) -> bool:
    """Return whether ``path`` is a film by its suffix, or an animation of two or more frames."""
    ending = path.suffix.lower()
    if ending in ANIMATIONS and path.is_file():
        try:
            with Image.open(path) as image:
                return int(getattr(image, "n_frames", 1)) > 1
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return False
    return ending in FILMS and path.is_file()


def write_video(
    backbone: Backbone,
    path: Path,
    out: Path,
    options: MapOptions,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write image, mean map and overlay side by side for every frame of ``path``.

    With ffmpeg that is ``<name>_attention.mp4`` in ``out``, at the original frame rate; without it, PNG files in the
    folder ``<name>_attention``. Returns video, frames, rate and files.
    Raises DataError for a file without frames, MachineError for a film without ffmpeg.
    """
    rate, frames = open_frames(path)
    target = out / f"{path.stem}_attention"
    count = 0

    def paint_frames() -> Iterator[Picture]:
        nonlocal count
        for frame in frames:
            maps = attention_maps(backbone, frame, options)
            mean = colour(maps.mean.numpy())
            yield np.concatenate([maps.image, mean, blend(maps.image, mean)], 1)
            count += 1
            progress(count, 0)

    if ffmpeg() is None:
        files = [save_png(picture, target / f"{i:06d}.png") for i, picture in enumerate(paint_frames())]
    else:
        files = [write_film(paint_frames(), target.with_suffix(".mp4"), rate)]
    return {"video": str(path), "frames": count, "rate": rate, "files": [str(file) for file in files]}


def open_frames(path: Path) -> tuple[float, Iterator[Picture]]:
    """Return frames a second and an iterator of frames (H, W, 3). Raises as ``write_video``."""
    return _animation(path) if path.suffix.lower() in ANIMATIONS else _film(path)


def ffmpeg() -> str | None:
    """Return the program ffmpeg, of the machine or of the package imageio-ffmpeg; None if there is none."""
    program = shutil.which("ffmpeg")
    if program is None:
        try:
            import imageio_ffmpeg

            program = str(imageio_ffmpeg.get_ffmpeg_exe())
        except (ImportError, RuntimeError):
            return None
    return program


def _animation(path: Path) -> tuple[float, Iterator[Picture]]:
    def frames() -> Iterator[Picture]:
        try:
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadImage("more than 64 megapixels", str(path))
                for i in range(int(getattr(image, "n_frames", 1))):
                    image.seek(i)
                    yield np.array(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, EOFError) as e:
            raise DataError(f"{path}: its frames cannot be read: {e}", "replace the file") from e

    with Image.open(path) as image:
        image.seek(1)
        image.load()  # only now is the duration known
        pause = float(image.info.get("duration") or 1000 / RATE)  # ms
    return 1000 / pause, frames()


def _film(path: Path) -> tuple[float, Iterator[Picture]]:
    program = ffmpeg()
    if program is None:
        raise MachineError(f"{path}: reading a film needs ffmpeg, which is not installed", HINT)
    quiet = [program, "-nostdin", "-hide_banner", "-protocol_whitelist", "file,pipe,crypto,data"]
    about = subprocess.run(
        [*quiet, "-i", _file_url(path)], capture_output=True, text=True, errors="replace", check=False
    )
    if " Video: " not in about.stderr:
        reason = (about.stderr.strip().splitlines() or ["nothing"])[-1]
        raise DataError(f"{path}: ffmpeg finds no video in it: {reason}", "replace the file")
    rate = re.search(r"([\d.]+) fps", about.stderr)
    words = [*quiet, "-loglevel", "error", "-i", _file_url(path), "-f", "image2pipe", "-c:v", "ppm", "-"]
    return float(rate[1]) if rate else RATE, _frames_of(words, path)


def _frames_of(words: list[str], path: Path) -> Iterator[Picture]:
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        while (picture := _ppm(process.stdout)) is not None:
            yield picture
    if process.returncode:
        raise DataError(
            f"{path}: ffmpeg stopped in the middle of it, with exit code {process.returncode}", "replace it"
        )


def _ppm(file: IO[bytes]) -> Picture | None:
    """Read the next binary PPM of a stream; return None at its end."""
    head = [file.readline() for _ in range(3)]  # P6, width and height, 255
    if not head[2]:
        return None
    width, height = map(int, head[1].split())
    pixels = file.read(3 * width * height)
    if len(pixels) < 3 * width * height:
        return None
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)


def _file_url(path: Path) -> str:
    return f"file:{path}"  # so that ffmpeg takes no name for an option or an address


class _Encoder:
    """An ffmpeg process that encodes frames of equal size."""

    def __init__(self, program: str, path: Path, size: tuple[int, int], rate: float) -> None:
        words = [program, "-nostdin", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
        words += ["-s", f"{size[0]}x{size[1]}", "-r", f"{rate:.4f}", "-i", "-"]
        words += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-f", "mp4", _file_url(path)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def add(self, picture: Picture) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(np.ascontiguousarray(picture).data)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self.process.stdin is not None and self.process.stderr is not None
        if kind is not None and not issubclass(kind, BrokenPipeError):
            self.process.kill()
            self.process.wait()
            return
        _, errors = self.process.communicate()
        if self.process.returncode:
            words = errors.decode(errors="replace").strip().splitlines() or ["nothing"]
            raise MachineError(f"ffmpeg cannot write the film: {words[-1]}", "check the disk and ffmpeg")


def write_film(pictures: Iterable[Picture], path: Path, rate: float) -> Path:
    """Write pictures of equal size as an mp4. Raises MachineError if ffmpeg or the disk refuses."""
    program = ffmpeg()
    if program is None:
        raise MachineError(f"{path}: writing a film needs ffmpeg, which is not installed", HINT)
    stream = iter(pictures)
    first = next(stream, None)
    if first is None:
        raise DataError(f"{path}: no frames to write", "give a film with frames")
    with replacing(path, 0) as partial, _Encoder(program, partial, (first.shape[1], first.shape[0]), rate) as encoder:
        encoder.add(first)
        for picture in stream:
            encoder.add(picture)
    return path
