"""A pack: images decoded once, at the size that training needs, in one file that is read without decoding."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import replacing
from .decode import BadImage, Pixels
from .source import Indices, Labels, Names, Source, printable

EXTENSION = ".pack"
FORMAT = "sslctl-pack 1"
BROKEN = "make it again with sslctl data pack"

_MOST_HEADER = 64 << 20  # bytes; class names are what can make it long
_TYPES: dict[str, np.dtype[Any]] = {"I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "U8": np.dtype("u1")}


class PackSource(Source):
    """The images of the pack ``path``, uint8 (H, W, 3), read as views into the memory-mapped file.

    Names, labels and classes are those of the set it was made from.
    """

    def __init__(self, path: str, contents: Contents) -> None:
        super().__init__(path, contents.labels, contents.classes)
        self.path, self.meta = path, contents.meta
        self.sizes, self.offsets, self.names = contents.sizes, contents.offsets, contents.names
        self.bad = dict(contents.bad)
        self.ids: Indices = np.arange(len(self.sizes), dtype=np.int64)
        self._where = contents.where
        self._mapped: Pixels | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mapped": None}  # a process of its own maps the file again, instead of copying it

    def __len__(self) -> int:
        return len(self.sizes)

    def item_name(self, i: int) -> str:
        return printable(f"{self.path}: {self.names[i]}")

    def size(self, i: int) -> tuple[int, int]:
        self._refuse_bad(i)
        height, width = self.sizes[i].tolist()
        return height, width

    def read(self, i: int) -> Pixels:
        height, width = self.size(i)
        if self._mapped is None:
            self._mapped = np.memmap(self.path, np.uint8, "r", *self._where)
        start = int(self.offsets[i])
        pixels: Pixels = np.asarray(self._mapped[start : start + 3 * height * width]).reshape(height, width, 3)
        return pixels

    def fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps([self.meta[key] for key in ("fingerprint", "size", "cut")]).encode())
        digest.update(self.ids.astype("<i8").tobytes())
        return digest.hexdigest()

    def take(self, indices: Indices) -> Self:
        part = copy.copy(self)
        part.ids, part.sizes, part.offsets = self.ids[indices], self.sizes[indices], self.offsets[indices]
        part.names = Names(self.names[i] for i in indices)
        part.labels = None if self.labels is None else self.labels[indices]
        part.bad = {new: self.bad[old] for new, old in enumerate(indices.tolist()) if old in self.bad}
        return part

    def _refuse_bad(self, i: int) -> None:
        if i in self.bad:
            raise BadImage(self.bad[i], self.item_name(i))


class Contents(NamedTuple):
    """The contents of a pack; ``where`` are the pixels in the file: offset and (length,)."""

    sizes: NDArray[np.int32]  # (n, 2) height and width, 0 where an image cannot be read
    offsets: NDArray[np.int64]  # (n,) into the pixels
    names: Names
    labels: Labels | None
    classes: list[str]
    bad: dict[int, str]
    meta: dict[str, str]
    where: tuple[int, tuple[int]]


def open_pack(path: str) -> PackSource:
    """Raises DataError where the file is no pack, or not whole."""
    try:
        with open(path, "rb") as file:
            contents = _read(file, os.fstat(file.fileno()).st_size)
    except OSError as e:
        raise DataError(f"{printable(path)} cannot be read: {e.strerror}") from e
    except (ValueError, KeyError, TypeError, IndexError) as e:
        raise DataError(f"{printable(path)} is no whole pack: {e}", BROKEN) from e
    return PackSource(path, contents)


def _read(file: IO[bytes], size: int) -> Contents:
    (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
    if length > min(size - 8, _MOST_HEADER):
        raise ValueError("its header does not fit into it")
    header = json.loads(file.read(length))
    meta = header.pop("__metadata__")
    if meta["format"] != FORMAT:
        raise ValueError(f"its format is {meta['format']}, not {FORMAT}")
    begins = 8 + length
    if any(begins + entry["data_offsets"][1] > size for entry in header.values()):
        raise ValueError("it ends too early")

    def array(name: str) -> NDArray[Any]:
        entry = header[name]
        start, end = entry["data_offsets"]
        file.seek(begins + start)
        return np.frombuffer(file.read(end - start), _TYPES[entry["dtype"]]).reshape(entry["shape"])

    start, end = header["pixels"]["data_offsets"]
    sizes, offsets = array("sizes"), array("offsets")
    names = array("names").tobytes().split(b"\0")
    bad = {int(i): str(reason) for i, reason in json.loads(array("unreadable").tobytes()).items()}
    labels, classes = (array("labels").astype(np.int64) if "labels" in header else None), json.loads(meta["classes"])
    lengths = 3 * sizes.astype(np.int64).prod(1)
    if not len(sizes) == len(offsets) == len(names) or (sizes < 0).any() or (offsets < 0).any():
        raise ValueError("its tables do not fit together")
    if (offsets + lengths > end - start).any() or set(np.flatnonzero(lengths == 0).tolist()) != set(bad):
        raise ValueError("its images lie outside")
    if labels is not None and (labels.shape != (len(sizes),) or labels.min() < 0 or labels.max() >= len(classes)):
        raise ValueError("its labels are of no class")
    named = Names(map(os.fsdecode, names))
    return Contents(sizes, offsets, named, labels, classes, bad, meta, (begins + start, (end - start,)))


class Packing:
    """A pack being written to ``file``: add images in order, then ``finish``.

    It is a safetensors file: tables first, then all pixels one after the other, last what could not be read. The header
    stands before them and is written at the end, into room that was left for it.
    """

    def __init__(self, file: IO[bytes], names: Sequence[bytes], labels: Labels | None, meta: dict[str, str]) -> None:
        n = len(names)
        self.file, self.meta = file, meta
        self.sizes, self.offsets = np.zeros((n, 2), "<i4"), np.zeros(n, "<i8")
        self.bad: dict[int, str] = {}
        tables = {"offsets": self.offsets, "sizes": self.sizes, "names": np.frombuffer(b"\0".join(names), np.uint8)}
        if labels is not None:
            tables = {"labels": labels.astype("<i8")} | tables
        self.tables: dict[str, NDArray[Any]] = tables
        self.room = -(-len(self._header(10**15, 10**15)) // 4096) * 4096 + 4088
        file.seek(8 + self.room + sum(table.nbytes for table in tables.values()))
        self.added = self.written = 0

    def add(self, image: Pixels | BadImage) -> None:
        if isinstance(image, BadImage):
            self.bad[self.added] = image.reason
        else:
            self.sizes[self.added], self.offsets[self.added] = image.shape[:2], self.written
            self.written += self.file.write(np.ascontiguousarray(image).data)
        self.added += 1

    def finish(self) -> None:
        unreadable = json.dumps(self.bad).encode()
        self.file.write(unreadable)
        self.file.seek(0)
        header = self._header(self.written, len(unreadable)).ljust(self.room)
        self.file.write(struct.pack("<Q", len(header)) + header)
        for table in self.tables.values():
            self.file.write(table.tobytes())

    def _header(self, pixels: int, unreadable: int) -> bytes:
        entries: dict[str, Any] = {"__metadata__": self.meta}
        end = 0
        kinds = {kind: name for name, kind in _TYPES.items()}
        parts = {name: (kinds[t.dtype], list(t.shape), t.nbytes) for name, t in self.tables.items()}
        parts |= {"pixels": ("U8", [pixels], pixels), "unreadable": ("U8", [unreadable], unreadable)}
        for name, (kind, shape, length) in parts.items():
            entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + length]}
            end += length
        return json.dumps(entries).encode()


def pack_file(path: Path, size: int) -> Any:
    """Replace ``path`` atomically, after removing what killed writers left behind."""
    for left in path.parent.glob(f".{path.name}.part-*"):
        pid = left.name.rsplit("-", 1)[1]
        if pid.isdecimal() and not _runs(int(pid)):
            left.unlink(missing_ok=True)
    return replacing(path, size)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
