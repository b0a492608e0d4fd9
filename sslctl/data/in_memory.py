"""A set whose images all have one size, decoded once and held in memory; and what follows for how they are cropped."""

from __future__ import annotations

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import numpy as np
import torch

from ..errors import DataError, MachineError
from ..runtime.device import free_memory
from .decode import BadImage, Pixels
from .pack import PackSource
from .source import FileSource, Indices, Source
from .unreadable import nothing_readable

LIMIT = 1 << 30
"""Bytes of pixels up to which a set is held in memory by itself; and never more than a quarter of what is free."""

BATCHED = 80 * 80
"""Pixels of an image up to which a CPU core crops whole batches, by products, sooner than image by image (measured)."""

_CHUNK = 512


class HeldSource(Source):
    """The images of ``files`` in memory.

    Positions, names and fingerprint stay those of the files, so that holding a set changes no number of a run. An image
    that cannot be read keeps its place: it stands in ``bad``, is black in ``array``, and ``read`` raises BadImage.
    """

    def __init__(self, files: FileSource | PackSource, array: Pixels, bad: dict[int, str]) -> None:
        super().__init__(files.name, files.labels, files.classes)
        self.files: FileSource | PackSource = files
        self.array: Pixels = array
        self.bad = bad
        self.notes = files.notes

    def __len__(self) -> int:
        return len(self.array)

    def item_name(self, i: int) -> str:
        return self.files.item_name(i)

    def read(self, i: int) -> Pixels:
        if i in self.bad:
            raise BadImage(self.bad[i], self.item_name(i))
        return np.array(self.array[i])

    def fingerprint(self) -> str:
        return self.files.fingerprint()

    def take(self, indices: Indices) -> Self:
        part = copy.copy(self)
        part.files = self.files.take(indices)
        part.labels = part.files.labels
        part.array = self.array[indices]
        part.bad = {new: self.bad[old] for new, old in enumerate(indices.tolist()) if old in self.bad}
        return part


def in_memory(source: Source, wanted: bool | None = None, limit: int = LIMIT) -> Source:
    """Return ``source`` held in memory, if ``wanted``; None: if its pixels take no more than ``limit`` bytes.

    Sets with images of several sizes stay as they are; a few headers recognise most of them, without decoding.
    Raises DataError if it is ``wanted`` and sizes differ, or if no image can be read; MachineError if memory does not
    suffice.
    """
    if wanted is False or not isinstance(source, FileSource | PackSource):
        return source
    if wanted is None and not _looks_small(source, limit):
        return source
    return _decode_all(source, strict=wanted is True)


def in_batches(source: Source, device: torch.device) -> bool:
    """Return whether crops of ``source`` are best taken from whole batches, not image by image in workers."""
    if source.array is None:
        return False
    return device.type != "cpu" or source.array.shape[1] * source.array.shape[2] <= BATCHED


def _looks_small(source: FileSource | PackSource, limit: int, probes: int = 32) -> bool:
    sizes = set()
    for i in sorted({len(source) * k // probes for k in range(probes)}):
        try:
            sizes.add(source.size(i))
        except BadImage:
            continue
        if len(sizes) > 1:
            return False
    free = free_memory(torch.device("cpu"))
    limit = limit if free is None else min(limit, free // 4)
    return bool(sizes) and all(len(source) * width * height * 3 <= limit for width, height in sizes)


def _decode_all(source: FileSource | PackSource, strict: bool) -> Source:
    """Decode all images; unless ``strict``, return ``source`` itself once two images differ in size."""

    def read(i: int) -> Pixels | BadImage:
        try:
            return source.read(i)
        except BadImage as e:
            return e

    array: Pixels | None = None
    bad: dict[int, str] = {}
    first = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(source), _CHUNK):  # in parts: Ctrl-C waits for one part only
            for i, image in enumerate(pool.map(read, range(start, min(start + _CHUNK, len(source)))), start):
                if isinstance(image, BadImage):
                    bad[i] = image.reason
                    continue
                if array is None:
                    array, first = _room(source, image.shape), i
                if image.shape != array.shape[1:]:
                    if strict:
                        raise _differ(source, first, array.shape[1:], i, image.shape)
                    return source
                array[i] = image
    if array is None:
        raise nothing_readable(source, bad)
    return HeldSource(source, array, bad)


def _room(source: Source, shape: tuple[int, ...]) -> Pixels:
    try:
        return np.zeros((len(source), *shape), np.uint8)
    except MemoryError as e:
        size = len(source) * int(np.prod(shape)) / 2**30
        raise MachineError(
            f"{source.name} does not fit into memory: {size:.0f} GiB", "leave --set data.in_memory=true out"
        ) from e


def _differ(source: Source, i: int, first: tuple[int, ...], j: int, other: tuple[int, ...]) -> DataError:
    return DataError(
        f"{source.name} cannot be held in memory, its images have several sizes: {source.item_name(i)} is"
        f" {first[1]}x{first[0]}, {source.item_name(j)} is {other[1]}x{other[0]}",
        "leave --set data.in_memory=true out, or resize the images",
    )
