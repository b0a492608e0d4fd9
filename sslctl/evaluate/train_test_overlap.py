"""Images that are in both sets of an evaluation, by their content."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ..data.decode import BadImage
from ..data.source import FileSource, Source

HEAD = 16 << 10  # bytes of a file that tell nearly all of equal size apart
THREADS = 8  # files are waited for, not computed with

Key = Callable[[Source, int], Hashable]  # of what cannot be read: a value that no other image has


@dataclass(frozen=True)
class Overlap:
    """``pairs``: position of a test image -> that of a training image (another image) with the same ``by``."""

    pairs: dict[int, int]
    by: Literal["file bytes", "pixels"]


def find_overlap(train: Source, test: Source) -> Overlap:
    """Return test images whose content is in ``train`` too; if that is ``test`` itself, duplicates.

    Where one of the sets is in memory, images are compared pixel by pixel, so that a copy in another lossless format
    is one too. Files are compared byte by byte; only those of equal size and equal beginning are read whole.
    """
    alone = train is test
    files = isinstance(train, FileSource) and isinstance(test, FileSource)
    keys: tuple[Key, ...] = (_size, _head, _bytes) if files else (_pixels,)
    ours: dict[int, Hashable] = dict.fromkeys(range(len(train)))
    theirs: dict[int, Hashable] = dict.fromkeys(range(len(test)))
    with ThreadPoolExecutor(THREADS) as pool:
        for key in keys:
            ours = dict(zip(ours, pool.map(partial(key, train), ours), strict=True))
            theirs = ours if alone else dict(zip(theirs, pool.map(partial(key, test), theirs), strict=True))
            counts, wanted = Counter(ours.values()), set(theirs.values())
            ours = {i: value for i, value in ours.items() if value in wanted and counts[value] > alone}
            theirs = {i: value for i, value in theirs.items() if counts[value] > alone}
    places: dict[Hashable, list[int]] = defaultdict(list)
    for i, value in ours.items():
        places[value].append(i)
    pairs = {i: next(j for j in places[value] if not alone or j != i) for i, value in theirs.items()}
    return Overlap(pairs, "file bytes" if files else "pixels")


def _size(source: Source, i: int) -> Hashable:
    assert isinstance(source, FileSource)
    try:
        return os.stat(source.path(i)).st_size
    except OSError:
        return source.item_name(i), i


def _head(source: Source, i: int) -> Hashable:
    return _digest(source, i, HEAD)


def _bytes(source: Source, i: int) -> Hashable:
    return _digest(source, i, -1)


def _digest(source: Source, i: int, most: int) -> Hashable:
    assert isinstance(source, FileSource)
    try:
        with open(source.path(i), "rb") as file:
            return hashlib.blake2b(file.read(most), digest_size=16).digest()
    except OSError:
        return source.item_name(i), i


def _pixels(source: Source, i: int) -> Hashable:
    if i in source.bad:
        return source.item_name(i), i
    try:
        image = source.read(i)
    except BadImage:
        return source.item_name(i), i
    return image.shape, hashlib.blake2b(image.tobytes(), digest_size=16).digest()
