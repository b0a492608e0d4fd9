"""Array packs: images, labels and classes in one .npz or .safetensors file, held in memory."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .decode import Pixels
from .folder import Split
from .source import ArraySource, Labels, labels_from_names, printable, sort_classes

EXTENSIONS = (".npz", ".safetensors")
LAYOUT = "images: uint8 (n, H, W, 3), (n, 3, H, W) or grey (n, H, W); labels: whole numbers (n,); classes: names"

_PREFIXES: dict[Split, tuple[str, ...]] = {"train": ("train_", ""), "val": ("val_", "test_", "")}

Arrays = dict[str, NDArray[Any]]


def open_pack(path: str, split: Split) -> ArraySource:
    """Open the images of the pack ``path``.

    Keys are ``images``, with optional ``labels`` and ``classes`` (in safetensors a JSON list in the metadata). A pack
    with ``train_images`` and ``val_images`` or ``test_images`` has parts. Pickled objects are never loaded.
    Raises DataError where the file or its arrays are not of that kind.
    """
    keys = pack_keys(path)
    prefix = next((prefix for prefix in _PREFIXES[split] if f"{prefix}images" in keys), None)
    if prefix is None:
        there = ", ".join(printable(key) for key in sorted(keys)) or "nothing"
        raise DataError(f"{printable(path)} has no images: its keys are {there}", LAYOUT)
    arrays = _read(path, (f"{prefix}images", f"{prefix}labels", "classes"))
    images = _as_images(path, arrays[f"{prefix}images"])
    if f"{prefix}labels" not in arrays:
        return ArraySource(path, images)
    labels, classes = _as_labels(path, len(images), arrays[f"{prefix}labels"], arrays.get("classes"))
    return ArraySource(path, images, labels, classes)


def pack_has_parts(path: str) -> bool:
    """Return whether the pack has images of its own for evaluation."""
    return not {"val_images", "test_images"}.isdisjoint(pack_keys(path))


def pack_keys(path: str) -> set[str]:
    with _reading(path):
        if path.lower().endswith(".npz"):
            with np.load(path, allow_pickle=False) as pack:
                return set(pack.files)
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            return set(file.keys())


def _read(path: str, wanted: Collection[str]) -> Arrays:
    """The ``wanted`` arrays that are there."""
    with _reading(path):
        if path.lower().endswith(".npz"):
            with np.load(path, allow_pickle=False) as pack:
                return {key: pack[key] for key in wanted if key in pack.files}
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            keys = set(file.keys())
            arrays: Arrays = {key: file.get_tensor(key) for key in wanted if key in keys}
            classes = (file.metadata() or {}).get("classes")
        return arrays if classes is None else arrays | {"classes": np.array(json.loads(classes))}


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as e:
        raise DataError(f"{printable(path)} does not fit into memory", "write files and give their folder") from e
    except Exception as e:  # zip, npy and safetensors readers raise their own kinds
        raise DataError(f"{printable(path)} cannot be read as an array pack: {e}", LAYOUT) from e


def _as_images(path: str, images: NDArray[Any]) -> Pixels:
    """Return uint8 images (n, H, W, 3)."""
    what = f"{printable(path)}: images are {images.dtype} {images.shape}"
    if images.dtype != np.uint8:
        raise DataError(f"{what}, not uint8", "store pixel values 0-255 as uint8")
    if images.ndim == 3:
        images = images[..., None]
    elif images.ndim == 4 and images.shape[3] not in (1, 3) and images.shape[1] in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DataError(f"{what}, not images in a known layout", LAYOUT)
    if 0 in images.shape:
        raise DataError(f"{what}: there are none", LAYOUT)
    return np.ascontiguousarray(images if images.shape[3] == 3 else np.repeat(images, 3, axis=3))


def _as_labels(path: str, n: int, labels: NDArray[Any], classes: NDArray[Any] | None) -> tuple[Labels, list[str]]:
    what = f"{printable(path)}: labels are {labels.dtype} {labels.shape}"
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (n,):
        raise DataError(f"{what} for {n} images", "labels are one whole number or name an image")
    if labels.dtype.kind == "U":
        return labels_from_names(labels.tolist())
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise DataError(f"{what}, not whole numbers from 0", "leave labels out where there are none")
    if classes is None:
        return labels_from_names([str(value) for value in labels.tolist()])
    names = [str(name) for name in classes.tolist()] if classes.ndim == 1 else []
    if labels.max() >= len(names) or len(set(names)) != len(names):
        raise DataError(
            f"{printable(path)}: {len(names)} classes for labels up to {labels.max()}",
            "classes are different names, one for each label",
        )
    return sort_classes(labels.astype(np.int64), names)
