"""Images in a folder: found once each, labelled by class folders, in parts where it has train/ and val/."""

from __future__ import annotations

import os
from collections import Counter, deque
from typing import Literal, NamedTuple

from ..errors import DataError
from .decode import EXTENSIONS
from .source import FileSource, labels_from_names, printable

Split = Literal["train", "val"]

TRAIN_FOLDERS = ("train", "training")
VAL_FOLDERS = ("val", "valid", "validation", "test")

_SKIPPED_FOLDERS = {"__MACOSX", "@eaDir"}  # what archivers and photo servers leave behind
_FOREIGN_NAMES = "heic heif jxl cr2 cr3 nef arw dng raf orf rw2 svg psd exr hdr dcm pfm"
_FOREIGN = {f".{name}" for name in _FOREIGN_NAMES.split()}


def open_folder(path: str, split: Split) -> FileSource:
    """Open the images of the folder ``path``, or of its part ``split`` if it has parts.

    - *Parts*: a folder with both ``train`` (or ``training``) and ``val``, ``valid``, ``validation`` or ``test`` in it.
      Anything beside those two is left out.
    - *Labels*: where every image lies exactly one folder down, that folder's name is its class. Images at the top, or
      deeper ones, make it a set without labels.

    Hidden files and folders do not count, nor do folders without images. Names are relative to ``path``, sorted.
    Raises DataError where there is no image.
    """
    parts = folder_parts(path)
    root = path if parts is None else os.path.join(path, parts[split])
    listing = find_images(root)
    if not listing.names:
        raise _no_images(root, listing)
    classes = [name.split("/")[0] for name in listing.names if name.count("/") == 1]
    if len(classes) == len(listing.names):
        labels, names = labels_from_names(classes)
        source = FileSource(root, root, listing.names, labels, names)
    else:
        source = FileSource(root, root, listing.names)
    source.notes = _notes(listing)
    return source


def folder_parts(path: str) -> dict[Split, str] | None:
    """Return the names of the subfolders that are the train and the val part, or None."""
    with os.scandir(path) as entries:
        folders = {entry.name for entry in entries if entry.is_dir()}
    train = next((name for name in TRAIN_FOLDERS if name in folders), None)
    val = next((name for name in VAL_FOLDERS if name in folders), None)
    return None if train is None or val is None else {"train": train, "val": val}


class Listing(NamedTuple):
    names: list[str]  # relative to the root, "/" between parts, sorted
    others: Counter[str]  # extensions of files that are no images, with their counts
    special: int  # FIFOs, sockets, devices, dangling links
    unreadable: list[str]  # folders that could not be listed


def find_images(root: str) -> Listing:
    """List every image below ``root`` by its extension.

    A folder is visited once, however many links lead to it, and by its own name rather than by a link's.
    """
    listing = Listing([], Counter(), 0, [])
    special = 0
    visited: set[tuple[int, int]] = set()
    folders, links = deque([""]), deque[str]()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        try:
            status = os.stat(os.path.join(root, folder))
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(os.path.join(root, folder)) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError:
            listing.unreadable.append(folder)
            continue
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith(".") or entry.name in _SKIPPED_FOLDERS:
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append(name)
            elif not entry.is_file():
                special += 1
            elif (extension := os.path.splitext(entry.name)[1].lower()) in EXTENSIONS:
                listing.names.append(name)
            else:
                listing.others[extension] += 1
    listing.names.sort()
    return listing._replace(special=special)


def _notes(listing: Listing) -> list[str]:
    notes = []
    if listing.special:
        notes.append(f"{listing.special} dangling links or special files skipped")
    if listing.unreadable:
        notes.append(f"{len(listing.unreadable)} folders cannot be listed, first {printable(listing.unreadable[0])}")
    foreign = {extension: count for extension, count in listing.others.items() if extension in _FOREIGN}
    if foreign:
        counts = ", ".join(f"{count} {extension}" for extension, count in sorted(foreign.items()))
        notes.append(f"image files of formats that cannot be read are left out: {counts}")
    return notes


def _no_images(root: str, listing: Listing) -> DataError:
    if "" in listing.unreadable:
        return DataError(f"{printable(root)} cannot be listed", "check the folder's permissions")
    others = listing.others.most_common(5)
    there = ", ".join(f"{count} {printable(extension) or 'without extension'}" for extension, count in others)
    reason = f"there are files of other kinds: {there}" if there else "it is empty"
    formats = " ".join(sorted(extension.lstrip(".") for extension in EXTENSIONS))
    return DataError(f"no images in {printable(root)}: {reason}", f"give a folder with image files ({formats})")
