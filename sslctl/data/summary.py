"""What a set of images is: how many, of which classes and sizes, which cannot be read, which are there twice."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from .decode import BadImage
from .source import FileSource, Source, printable


class Summary(NamedTuple):
    images: int
    classes: dict[str, int]  # images of each; empty without labels
    widths: tuple[int, int, int]  # smallest, median, largest
    heights: tuple[int, int, int]
    unreadable: list[tuple[str, str]]  # name, reason
    duplicates: list[list[str]]  # names of images that are the same to the byte
    fingerprint: str


def summarise(source: Source, *, decode: bool = False, report: Callable[[int], None] = lambda done: None) -> Summary:
    """Summarise the dataset from every image's header, or with ``decode`` from all of its pixels."""
    sizes: list[tuple[int, int]] = []
    unreadable: list[tuple[str, str]] = []

    def look(i: int) -> tuple[int, int] | BadImage:
        try:
            if decode:
                source.read(i)
            return source.size(i)
        except BadImage as e:
            return e

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for i, found in enumerate(pool.map(look, range(len(source)))):
            if isinstance(found, BadImage):
                unreadable.append((source.item_name(i), found.reason))
            else:
                sizes.append(found)
            report(i + 1)
    heights, widths = np.array(sizes or [(0, 0)]).T
    return Summary(
        images=len(source),
        classes=_per_class(source),
        widths=_range(widths),
        heights=_range(heights),
        unreadable=unreadable,
        duplicates=[[source.item_name(i) for i in same] for same in _same(source)],
        fingerprint=source.fingerprint(),
    )


def _per_class(source: Source) -> dict[str, int]:
    if source.labels is None:
        return {}
    counts = np.bincount(source.labels, minlength=len(source.classes)).tolist()
    return {printable(name): count for name, count in zip(source.classes, counts, strict=True)}


def _range(values: Any) -> tuple[int, int, int]:
    return int(values.min()), int(np.median(values)), int(values.max())


def _same(source: Source) -> list[list[int]]:
    """Return groups of images that are equal to the byte: files by content, others by pixels."""

    def length(i: int) -> Hashable:
        if isinstance(source, FileSource):
            return os.stat(source.path(i)).st_size
        return source.size(i)

    def content(i: int) -> Hashable:
        if isinstance(source, FileSource):
            with open(source.path(i), "rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        return hashlib.sha256(np.ascontiguousarray(source.read(i)).data).digest()

    groups = _groups(range(len(source)), length)
    return [same for group in groups for same in _groups(group, content)]


def _groups(positions: Any, key: Callable[[int], Hashable]) -> list[list[int]]:
    """Return positions that share a key with another; unreadable ones share none."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for i in positions:
        try:
            groups[key(i)].append(i)
        except (OSError, BadImage):
            continue
    return [group for group in groups.values() if len(group) > 1]
