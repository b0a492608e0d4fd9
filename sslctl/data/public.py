"""Public sets by name through torchvision, kept in a cache folder and fetched only on request."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError, MachineError
from .folder import Split
from .source import ArraySource, FileSource, Labels, Source, sort_classes

Args = dict[str, Any]


class PublicSet(NamedTuple):
    """A ``dataset`` of torchvision.datasets, and the arguments that make each part."""

    dataset: str
    train: tuple[Args, ...]
    val: tuple[Args, ...] = ()
    unlabelled: tuple[Args, ...] = ()  # to train on where labels do not matter


def _splits(dataset: str, train: Sequence[str], val: str, unlabelled: str = "", **more: Any) -> PublicSet:
    def args(*names: str) -> tuple[Args, ...]:
        return tuple({"split": name, **more} for name in names if name)

    return PublicSet(dataset, args(*train), args(val), args(unlabelled))


def _halves(dataset: str) -> PublicSet:
    return PublicSet(dataset, ({"train": True},), ({"train": False},))


PUBLIC = {
    "cifar10": _halves("CIFAR10"),
    "cifar100": _halves("CIFAR100"),
    "mnist": _halves("MNIST"),
    "fashionmnist": _halves("FashionMNIST"),
    "kmnist": _halves("KMNIST"),
    "stl10": _splits("STL10", ["train"], "test", "train+unlabeled"),
    "svhn": _splits("SVHN", ["train"], "test"),
    "imagenette": _splits("Imagenette", ["train"], "val", size="320px"),
    "imagenette160": _splits("Imagenette", ["train"], "val", size="160px"),
    "flowers102": _splits("Flowers102", ["train", "val"], "test"),
    "food101": _splits("Food101", ["train"], "test"),
    "pets": _splits("OxfordIIITPet", ["trainval"], "test"),
    "dtd": _splits("DTD", ["train", "val"], "test"),
    "aircraft": _splits("FGVCAircraft", ["trainval"], "test"),
    "gtsrb": _splits("GTSRB", ["train"], "test"),
    "eurosat": PublicSet("EuroSAT", ({},)),
}


def public_name(word: str) -> str | None:
    """Return the key of PUBLIC that ``word`` means, whatever its capitals, hyphens and underscores."""
    name = word.lower().replace("-", "").replace("_", "")
    return name if name in PUBLIC else None


def cache_dir() -> Path:
    """Return where public sets are kept: SSLCTL_DATA, or ~/.cache/sslctl/data."""
    return Path(os.environ.get("SSLCTL_DATA") or "~/.cache/sslctl/data").expanduser()


def open_public(name: str, split: Split, *, download: bool = False, labelled: bool = True) -> Source:
    """Open the part ``split`` of the set ``name``; ``labelled=False`` takes a larger unlabelled part if any.

    Raises DataError where it is not there and ``download`` is false, or is damaged; MachineError where it cannot be
    fetched.
    """
    public = PUBLIC[name]
    parts = public.val if split == "val" and public.val else public.train
    if split == "train" and not labelled and public.unlabelled:
        parts = public.unlabelled
    home = cache_dir() / name
    for root in (home, cache_dir()):  # the second: torchvision's own layout, where such a folder is at hand
        datasets = _load(public, parts, root)
        if datasets is not None:
            return _source(name, datasets)
    if home.exists():
        raise DataError(f"{name} in {home} is incomplete or damaged", f"remove {home} and add --download")
    if not download:
        raise DataError(
            f"{name} is not in {cache_dir()}",
            "add --download to fetch it, or point SSLCTL_DATA to the folder that has it",
        )
    _download(name, public, home)
    return open_public(name, split, labelled=labelled)


def _load(public: PublicSet, parts: Sequence[Args], root: Path) -> list[Any] | None:
    """Return the datasets of torchvision, or None where they are not whole in ``root``."""
    if not root.is_dir():
        return None
    try:
        return [_dataset(public)(root=str(root), **args) for args in parts]
    except ImportError as e:
        raise MachineError(f"{public.dataset} needs {e.name}", f"pip install {e.name}") from e
    except (RuntimeError, OSError):
        return None


def _dataset(public: PublicSet) -> Any:
    from torchvision import datasets

    return getattr(datasets, public.dataset)


def _download(name: str, public: PublicSet, home: Path) -> None:
    """Download into a temporary folder that is renamed when whole."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        part = tempfile.mkdtemp(prefix=f".{name}-", dir=home.parent)
    except OSError as e:
        raise MachineError(f"{home.parent} cannot be written: {e.strerror}", "set SSLCTL_DATA to another folder") from e
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout carries results only
            for args in (*public.train, *public.val):
                _dataset(public)(root=part, download=True, **args)
        os.replace(part, home)
    except (OSError, RuntimeError) as e:
        reason = getattr(e, "reason", e)
        raise MachineError(
            f"{name} cannot be fetched: {getattr(reason, 'strerror', None) or reason}",
            f"check the network, or put the files into {home} by hand; --data demo needs no download",
        ) from e
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _source(name: str, datasets: Sequence[Any]) -> Source:
    labels = np.concatenate([_labels(dataset) for dataset in datasets])
    kept: Labels | None = None
    classes: list[str] = []
    if labels.min() >= 0:  # stl10 marks images without label by -1
        kept, classes = sort_classes(labels, _classes(datasets[0], labels))
    if hasattr(datasets[0], "data"):
        images = np.concatenate([_pixels(dataset) for dataset in datasets])
        return ArraySource(name, images, kept, classes)
    root = str(datasets[0].root)
    names = [os.path.relpath(path, root) for dataset in datasets for path in _files(dataset)]
    return FileSource(name, root, names, kept, classes)


def _samples(dataset: Any) -> list[tuple[str, int]] | None:
    """Return (path, label) of the sets that keep them together."""
    return getattr(dataset, "_samples", None) or getattr(dataset, "samples", None)


def _files(dataset: Any) -> list[str]:
    samples = _samples(dataset)
    if samples is not None:
        return [path for path, _ in samples]
    return [str(path) for path in (dataset._images if hasattr(dataset, "_images") else dataset._image_files)]


def _labels(dataset: Any) -> Labels:
    samples = _samples(dataset)
    if samples is not None:
        return np.array([label for _, label in samples], np.int64)
    keys = ("targets", "labels", "_labels")
    values = next(getattr(dataset, key) for key in keys if hasattr(dataset, key))
    return np.asarray(values).astype(np.int64)


def _classes(dataset: Any, labels: Labels) -> list[str]:
    """Return the class names; numbers where a set has none, the first of several names."""
    names = getattr(dataset, "classes", None) or range(int(labels.max()) + 1)
    return [str(name[0] if isinstance(name, tuple) else name) for name in names]


def _pixels(dataset: Any) -> Any:
    """Return uint8 (n, H, W, 3) of the sets that torchvision holds in memory."""
    data = np.asarray(dataset.data)
    if data.ndim == 3:
        return np.repeat(data[..., None], 3, axis=3)
    return np.ascontiguousarray(data.transpose(0, 2, 3, 1) if data.shape[1] == 3 else data)
