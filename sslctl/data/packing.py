"""Making a pack: every image of a set decoded once, brought to size, written in order."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from .decode import BadImage, Pixels
from .pack import FORMAT, Packing, pack_file
from .source import FileSource, Source
from .unreadable import nothing_readable

_CHUNK = 256  # images in work at once; Ctrl-C waits for them
_TYPICAL = 4 / 3  # long side by short side, where room on the disk is guessed


class Packed(NamedTuple):
    images: int
    bytes: int
    bad: dict[int, str]


def fit(image: Pixels, size: int, square: bool) -> Pixels:
    """Scale ``image`` (H, W, 3) down to a shorter side of ``size`` px, by Pillow's antialiased bicubic.

    Its aspect stays; with ``square`` its centre is cut to a square first.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    if square:
        top, left = (height - short) // 2, (width - short) // 2
        image = image[top : top + short, left : left + short]
        height = width = short
    if short <= size:
        return image
    to = max(1, round(width * size / short)), max(1, round(height * size / short))
    return np.asarray(Image.fromarray(image).resize(to, Image.Resampling.BICUBIC))


def write_pack(
    source: Source,
    path: Path,
    size: int,
    *,
    square: bool = False,
    threads: int | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> Packed:
    """Write all images of ``source`` to the pack ``path``, which exists once it is whole.

    Images that cannot be read keep their place, with the reason. JPEGs of more than twice ``size`` are decoded at a
    half, a quarter or an eighth, as long as their shorter side stays at least twice ``size``.
    Raises DataError where no image can be read, MachineError where the disk refuses.
    """
    name = source.names.__getitem__ if isinstance(source, FileSource) else source.item_name
    names = [os.fsencode(name(i)) for i in range(len(source))]
    meta = {
        "format": FORMAT,
        "classes": json.dumps(source.classes),
        "source": source.name.encode("utf-8", "replace").decode(),
        "fingerprint": source.fingerprint(),
        "size": str(size),
        "cut": "square" if square else "whole",
    }
    if isinstance(source, FileSource):
        source = source.reduced(2 * size)
    with pack_file(path, round(3 * _TYPICAL * size**2 * len(source))) as partial, partial.open("wb") as file:
        packing = Packing(file, names, source.labels, meta)
        for image in _images(source, size, square, threads):
            packing.add(image)
            report(packing.added)
        if len(packing.bad) == len(source):
            raise nothing_readable(source, packing.bad)
        packing.finish()
    return Packed(len(source), path.stat().st_size, packing.bad)


def _images(source: Source, size: int, square: bool, threads: int | None) -> Iterator[Pixels | BadImage]:
    def made(i: int) -> Pixels | BadImage:
        try:
            return fit(source.read(i), size, square)
        except BadImage as e:
            return e

    with ThreadPoolExecutor(threads or min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(source), _CHUNK):
            yield from pool.map(made, range(start, min(start + _CHUNK, len(source))))
