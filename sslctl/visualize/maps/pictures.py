"""Maps of images as PNG files: each head, their mean, masks, an overlay, and a sheet of all."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ...backbones import Backbone
from ...data.decode import BadImage, Pixels
from ...data.source import FileSource, Source, printable
from ...errors import SpecError, closest
from ...files import write_atomically
from ..paint import Picture, blend, colour, darken_outside, mask_picture, save_png, tile_sheet
from .attention import AttentionMaps, MapOptions, attention_maps

PICTURES = ("heads", "masks", "mean", "union", "overlay", "sheet")

Entries = list[dict[str, Any]]  # of images: their files and facts
Failures = list[dict[str, str]]  # of images that cannot be read: image and reason


def write_maps(
    backbone: Backbone,
    source: Source,
    out: Path,
    options: MapOptions,
    *,
    pictures: Iterable[str] = PICTURES,
    raw: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Entries, Failures]:
    """Write maps of every image of ``source`` into ``out``, one image in memory at a time.

    ``pictures`` selects from PICTURES; ``raw`` adds ``<name>.npy``, float32 (maps, rows, columns). Returns an entry for
    each image (image, files, grid, size, stride), and the images that cannot be read with the reason.
    """
    entries: Entries = []
    failed: Failures = []
    for i, name, image in read_images(source, failed, progress):
        maps = attention_maps(backbone, image, options)
        files = [
            save_png(picture, _with_ending(out / name, f"_{kind}.png")) for kind, picture in paint_maps(maps, pictures)
        ]
        if raw:
            files.append(_save_array(maps, _with_ending(out / name, ".npy")))
        height, width = maps.image.shape[:2]
        entries.append(
            {
                "image": source.item_name(i),
                "files": [str(path) for path in files],
                "grid": list(maps.grid),
                "size": [height, width],
                "stride": maps.stride,
            }
        )
    return entries, failed


def read_images(
    source: Source, failed: Failures, progress: Callable[[int, int], None]
) -> Iterator[tuple[int, str, Pixels]]:
    """Yield position, output name and pixels of the readable images; append the others to ``failed``."""
    for i, name in enumerate(output_names(source)):
        try:
            image = source.read(i)
        except BadImage as e:
            failed.append({"image": source.item_name(i), "reason": e.reason})
        else:
            yield i, name, image
        progress(i + 1, len(source))


def parse_pictures(words: str) -> list[str]:
    """Split ``sheet,overlay`` into its words. Raises SpecError for one that is not in PICTURES."""
    pictures = [word.strip() for word in words.split(",")]
    for word in pictures:
        if word not in PICTURES:
            raise SpecError(f"--pictures '{word}': no such picture{closest(word, list(PICTURES))}", ", ".join(PICTURES))
    return pictures


def paint_maps(maps: AttentionMaps, pictures: Iterable[str]) -> list[tuple[str, Picture]]:
    """Return the selected pictures by name; a single map has no ``heads`` or ``masks``."""
    several, selection = len(maps.raw) > 1, set(pictures)
    tiles: list[tuple[str, Picture]] = []
    mean = colour(maps.mean.numpy())
    if "heads" in selection and several:
        tiles += [(f"head{i}", colour(head.numpy())) for i, head in enumerate(maps.heads)]
    if "masks" in selection and several:
        tiles += [(f"mask{i}", mask_picture(mask.numpy())) for i, mask in enumerate(maps.masks)]
    if "mean" in selection:
        tiles.append(("mean", mean))
    if "union" in selection:
        tiles.append(("union", mask_picture(maps.union.numpy())))
    if "overlay" in selection:
        tiles.append(("overlay", blend(maps.image, mean)))
    if "sheet" in selection:
        tiles.append(("sheet", _sheet(maps, mean)))
    return tiles


def _sheet(maps: AttentionMaps, mean: Picture) -> Picture:
    """Return a row of image, mean, overlay and union; if there are several maps, a row of them and one of masks."""
    several = len(maps.raw) > 1
    first = [
        ("image", maps.image),
        ("mean of heads" if several else "map", mean),
        ("overlay", blend(maps.image, mean)),
        (f"{100 * maps.share:.0f} % of the mass", darken_outside(maps.image, maps.union.numpy())),
    ]
    if not several:
        return tile_sheet(first, len(first))
    rows = [
        first,
        [(f"head {i}", colour(head.numpy())) for i, head in enumerate(maps.heads)],
        [(f"mask of head {i}", darken_outside(maps.image, mask.numpy())) for i, mask in enumerate(maps.masks)],
    ]
    columns = max(map(len, rows))
    blank = ("", maps.image * 0 + 255)
    return tile_sheet([tile for row in rows for tile in row + [blank] * (columns - len(row))], columns)


def _save_array(maps: AttentionMaps, path: Path) -> Path:
    buffer = io.BytesIO()
    np.save(buffer, maps.raw.numpy())
    write_atomically(path, buffer.getvalue())
    return path


def _with_ending(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


def output_names(source: Source) -> list[str]:
    """Return a relative path for each image, without suffix, all different and inside the folder."""
    paths = [
        PurePath(source.names[i] if isinstance(source, FileSource) else source.item_name(i)) for i in range(len(source))
    ]
    inside = [path if not path.is_absolute() and ".." not in path.parts else PurePath(path.name) for path in paths]
    safe = [PurePath(re.sub(r"[^\w./ +@-]", "_", printable(str(path)).replace("]", ""))) for path in inside]
    counts = Counter(path.with_suffix("") for path in safe)
    names: dict[str, None] = {}  # an ordered set
    for path in safe:
        name = str(path if counts[path.with_suffix("")] > 1 else path.with_suffix(""))
        while name in names:
            name += "_"
        names[name] = None
    return list(names)
