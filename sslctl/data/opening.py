"""What a person writes after --data → the images: folder, list, array pack, name of a public set, or demo."""

from __future__ import annotations

import os

import numpy as np

from ..errors import DataError, closest
from ..spec.schema import DataSpec
from . import arrays, listing, pack
from .decode import EXTENSIONS
from .demo import DEMOS, open_demo
from .folder import Split, folder_parts, open_folder
from .in_memory import in_memory
from .public import PUBLIC, open_public, public_name
from .source import Source, align_labels, printable
from .unreadable import check_bad, check_some_readable

KINDS = "a folder of images, a list (.txt .csv .tsv), a .pack, an array pack (.npz .safetensors), demo, or a public set"


def open_source(path: str, *, split: Split = "train", download: bool = False, labelled: bool = True) -> Source:
    """Open the images that ``path`` names, or their part ``split`` if they have an evaluation part.

    What exists on disk goes before a name: ``./demo`` is a folder wherever there is one. ``labelled=False`` says that
    labels do not matter, so that stl10 gives its 105 000 images to train on instead of the 5 000 with labels.
    Raises DataError, and MachineError where a public set cannot be fetched.
    """
    path = os.path.expanduser(path)
    name = public_name(path)
    if os.path.isdir(path):
        source: Source = open_folder(path, split)
    elif os.path.exists(path):
        source = _open_file(path, split)
    elif path in DEMOS:
        return open_demo(path, split)
    elif name is not None:
        return open_public(name, split, download=download, labelled=labelled)
    else:
        raise _missing(path)
    if path in DEMOS or name is not None:
        source.notes.append(f"'{path}' exists here and is used, not the set of that name")
    return source


def split_source(source: Source, fraction: float, seed: int) -> tuple[Source, Source]:
    """Split the images in two, the second with about ``fraction`` of them, of every class if labelled.

    Depends on the seed and the set alone. A class of two or more images has some in both parts. Raises DataError for
    a single image.
    """
    n = len(source)
    if n < 2:
        raise DataError(f"{source.name} has {n} image, too few to split", "give evaluation images with --val-data")
    shuffled = np.random.default_rng([seed, n]).permutation(n)
    groups = [shuffled]
    if source.labels is not None:
        groups = [shuffled[source.labels[shuffled] == label] for label in range(len(source.classes))]
    kept = np.concatenate([group[: _share(len(group), fraction)] for group in groups])
    if len(kept) == 0:  # every class has one image
        kept = shuffled[: _share(n, fraction)]
    val = np.zeros(n, bool)
    val[kept] = True
    return source.take(np.flatnonzero(~val)), source.take(np.flatnonzero(val))


def open_pair(spec: DataSpec, seed: int, *, labelled: bool = True) -> tuple[Source, Source]:
    """Open the images to train on and to evaluate on: ``spec.val``, the set's own part, or a seeded share.

    Both are held in memory as ``spec.in_memory`` says, and labels of both index the classes of the first, matched by
    name; the second may lack some of them.
    With ``labelled=False`` labels that do not match are no error: the training set then goes without them; and a set
    without labels is not split, since there is nothing to evaluate with: all of it is both parts.
    Raises DataError, and MachineError where a public set cannot be fetched.
    """
    train = open_source(spec.path, download=spec.download, labelled=labelled)
    if spec.val is not None:
        val = open_source(spec.val, split="val", download=spec.download)
    elif has_own_val(spec.path):
        val = open_source(spec.path, split="val", download=spec.download)
    elif train.labels is None and not labelled:
        val = train  # nothing to evaluate with: no image is kept from training
    else:
        train, val = split_source(train, spec.val_fraction, seed)
        train.notes.append(f"{len(val)} of {len(train) + len(val)} images are kept for evaluation (or give --val-data)")
    if train.labels is not None and val.labels is not None:
        try:
            val = align_labels(val, train, allow_missing=True)
        except DataError as e:
            if labelled:
                raise
            train.labels, train.classes = None, []
            train.notes.append(f"training labels are left out: {e.message}")
    prepared = _prepare(train, spec)
    return prepared, prepared if val is train else _prepare(val, spec)


def open_one(spec: DataSpec, split: Split = "train") -> Source:
    """Open the images of one set, or its own part ``split``: nothing kept back, labels or not.

    Raises DataError, and MachineError where a public set cannot be fetched.
    """
    return _prepare(open_source(spec.path, split=split, download=spec.download), spec)


def has_own_val(path: str) -> bool:
    """Return whether what ``path`` names has a part of its own for evaluation."""
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        return folder_parts(path) is not None
    if os.path.exists(path):
        return path.lower().endswith(arrays.EXTENSIONS) and arrays.pack_has_parts(path)
    name = public_name(path)
    return path in DEMOS or (name is not None and bool(PUBLIC[name].val))


def _prepare(source: Source, spec: DataSpec) -> Source:
    source = in_memory(source, spec.in_memory)
    if source.array is None:
        check_some_readable(source)
    check_bad(source, source.bad, fail=spec.bad_images == "fail", limit=spec.bad_limit)
    return source


def _share(n: int, fraction: float) -> int:
    """Return about ``fraction`` of ``n``, leaving at least one on either side if there are two."""
    return min(max(1, round(n * fraction)), n - 1) if n > 1 else 0


def _open_file(path: str, split: Split) -> Source:
    extension = os.path.splitext(path)[1].lower()
    if extension == pack.EXTENSION:
        return pack.open_pack(path)
    if extension in arrays.EXTENSIONS:
        return arrays.open_pack(path, split)
    if extension in listing.EXTENSIONS:
        return listing.open_listing(path)
    hint = f"give {KINDS}"
    if extension in EXTENSIONS:
        hint = f"give the folder it lies in: {printable(os.path.dirname(path) or '.')}"
    elif extension in (".tar", ".zip", ".tgz", ".gz", ".7z", ".rar"):
        hint = "unpack it and give the folder"
    raise DataError(f"{printable(path)} is a file of no kind that --data takes", hint)


def _missing(path: str) -> DataError:
    folder, word = os.path.split(path.rstrip("/"))
    try:
        neighbours = [os.path.join(folder, name) for name in os.listdir(folder or ".") if not name.startswith(".")]
    except OSError:
        neighbours = []
    names = [] if folder else [*DEMOS, *PUBLIC]
    guess = closest(os.path.join(folder, word), [printable(name) for name in neighbours] + names)
    if folder and not os.path.isdir(folder):
        guess = f", nor does its folder {printable(folder)}"
    return DataError(f"--data {printable(path)!r} does not exist{guess}", f"give {KINDS} ({', '.join(PUBLIC)})")
