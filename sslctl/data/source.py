"""The images of one split: how many, their names and labels, one image at a time; from files or from an array."""

from __future__ import annotations

import copy
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .decode import BadImage, Pixels, decode_file, header_size

Labels = NDArray[np.int64]
Indices = NDArray[np.int64]


class Source(ABC):
    """The images of one split.

    ``labels`` (n,) index into ``classes`` or are None. ``array`` (n, H, W, 3) holds all pixels where they are in
    memory. ``bad`` names the images already known to be unreadable, index → reason: their place in ``array`` is black
    and the loader takes the next readable image instead. ``notes`` are sentences a person may want to read.
    """

    def __init__(self, name: str, labels: Labels | None = None, classes: Sequence[str] = ()) -> None:
        self.name = name
        self.labels = labels
        self.classes = list(classes)
        self.array: Pixels | None = None
        self.bad: dict[int, str] = {}
        self.notes: list[str] = []

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def item_name(self, i: int) -> str:
        """Return the path or index of image ``i``, printable: for messages and JSON."""

    @abstractmethod
    def read(self, i: int) -> Pixels:
        """Image ``i``, uint8 (H, W, 3) RGB. Raises BadImage."""

    def size(self, i: int) -> tuple[int, int]:
        """Return (height, width) of image ``i``, of a file from its header and before rotation. Raises BadImage."""
        height, width = self.read(i).shape[:2]
        return height, width

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a sha256 over what the images are: names and sizes of files, or the bytes of an array."""

    @abstractmethod
    def take(self, indices: Indices) -> Self:
        """Return the images at ``indices``, in that order."""


class FileSource(Source):
    """Images in files; ``names`` are relative to ``root`` (or absolute).

    JPEGs are decoded whole, or, where ``at_least`` is set, as small as their shorter side stays that many px.
    """

    at_least: int | None = None

    def __init__(
        self, name: str, root: str, names: Iterable[str], labels: Labels | None = None, classes: Sequence[str] = ()
    ) -> None:
        super().__init__(name, labels, classes)
        self.root = root
        self.names = Names(names)

    def __len__(self) -> int:
        return len(self.names)

    def path(self, i: int) -> str:
        return os.path.join(self.root, self.names[i])

    def item_name(self, i: int) -> str:
        return printable(self.path(i))

    def read(self, i: int) -> Pixels:
        try:
            return decode_file(self.path(i), self.at_least)
        except BadImage as e:
            raise BadImage(e.reason, self.item_name(i)) from e

    def size(self, i: int) -> tuple[int, int]:
        try:
            width, height = header_size(self.path(i))
        except BadImage as e:
            raise BadImage(e.reason, self.item_name(i)) from e
        return height, width

    def reduced(self, at_least: int) -> Self:
        """Return the same images, JPEGs decoded at 1/2, 1/4 or 1/8 if their shorter side stays ``at_least`` px."""
        part = copy.copy(self)
        part.at_least = at_least
        return part

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for i in range(len(self)):
            try:
                size = os.stat(self.path(i)).st_size
            except OSError:
                size = -1
            digest.update(os.fsencode(self.names[i]) + b"\0%d\n" % size)
        return digest.hexdigest()

    def take(self, indices: Indices) -> Self:
        part = copy.copy(self)
        part.names = Names(self.names[i] for i in indices)
        part.labels = None if self.labels is None else self.labels[indices]
        return part


S = TypeVar("S", bound=Source)


class ArraySource(Source):
    """Images in memory, uint8 (n, H, W, 3); ``identity`` replaces the bytes in a fingerprint."""

    def __init__(
        self,
        name: str,
        array: Pixels,
        labels: Labels | None = None,
        classes: Sequence[str] = (),
        identity: str | None = None,
    ) -> None:
        super().__init__(name, labels, classes)
        self.array: Pixels = array
        self.ids: Indices = np.arange(len(array), dtype=np.int64)
        self.identity = identity

    def __len__(self) -> int:
        return len(self.array)

    def item_name(self, i: int) -> str:
        return f"{printable(self.name)}[{self.ids[i]}]"

    def read(self, i: int) -> Pixels:
        return np.array(self.array[i])

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr(self.array.shape).encode())
        if self.identity is None:
            digest.update(np.ascontiguousarray(self.array).data)
        else:
            digest.update(self.identity.encode() + self.ids.astype("<i8").tobytes())
        return digest.hexdigest()

    def take(self, indices: Indices) -> Self:
        part = copy.copy(self)
        part.array = self.array[indices]
        part.ids = self.ids[indices]
        part.labels = None if self.labels is None else self.labels[indices]
        return part


class Names:
    """File names in one block of bytes: a million cost no million objects, and forked workers share it untouched."""

    def __init__(self, names: Iterable[str]) -> None:
        parts = [os.fsencode(name) for name in names]
        self._ends = np.cumsum([0, *map(len, parts)])
        self._bytes = b"".join(parts)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> str:
        if i < 0:
            raise IndexError(i)
        return os.fsdecode(self._bytes[self._ends[i] : self._ends[i + 1]])


def printable(name: str) -> str:
    """Escape what is not printable in ``name`` (``\\xNN``: a byte outside UTF-8); names stay different."""

    def escape(char: str) -> str:
        code = ord(char)
        if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as os.fsdecode keeps it
            return f"\\x{code - 0xDC00:02x}"
        if char == "\\":
            return "\\\\"
        return char if char.isprintable() else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return name if name.isprintable() and "\\" not in name else "".join(map(escape, name))


def labels_from_names(names: Sequence[str]) -> tuple[Labels, list[str]]:
    """Return labels (n,) and sorted classes from each image's class name; numbers sort as numbers."""
    classes = _sorted_classes(set(names))
    place = {name: i for i, name in enumerate(classes)}
    return np.fromiter((place[name] for name in names), np.int64, len(names)), classes


def sort_classes(labels: Labels, classes: Sequence[str]) -> tuple[Labels, list[str]]:
    """Return the same labelling with ``classes`` sorted by name."""
    ordered = _sorted_classes(classes)
    place = {name: i for i, name in enumerate(ordered)}
    return np.array([place[name] for name in classes], np.int64)[labels], ordered


def align_labels(source: S, like: Source, *, allow_missing: bool = False) -> S:
    """Return ``source`` with labels as indices into the classes of ``like``, matched by name.

    Raises DataError naming the classes that only one of the two has; with ``allow_missing`` it may lack some of them.
    """
    if source.labels is None or like.labels is None:
        raise DataError(f"{(like if like.labels is None else source).name} has no labels to match by name", NO_LABELS)
    extra = [name for name in source.classes if name not in set(like.classes)]
    missing = [name for name in like.classes if name not in set(source.classes)]
    if extra or (missing and not allow_missing):
        differences = [
            f"only in {printable(where)}: {_some(names)}"
            for where, names in ((source.name, extra), (like.name, missing))
            if names
        ]
        raise DataError(
            f"classes differ: {'; '.join(differences)}", "rename or remove class folders until both have the same names"
        )
    place = {name: i for i, name in enumerate(like.classes)}
    aligned = copy.copy(source)
    aligned.labels = np.array([place[name] for name in source.classes], np.int64)[source.labels]
    aligned.classes = list(like.classes)
    return aligned


NO_LABELS = "labels come from class folders (PATH/CLASS/image), a label column of a list, or an array pack"


def _sorted_classes(classes: Iterable[str]) -> list[str]:
    names = list(classes)
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more
