"""Maps of images as PNG files: every head, their mean, masks, an overlay, and a sheet of all."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ...backbones import Backbone
from ...data.decode import BadImage
from ...data.source import FileSource, Source, printable
from ...errors import SpecError, closest
from ...files import write_atomically
from ..paint import Picture, black_white, blend, colour, dim, save, sheet
from .attention import AttentionMaps, Look, attention_maps

PICTURES = ("heads", "masks", "mean", "union", "overlay", "sheet")

Written = list[dict[str, Any]]
Failed = list[dict[str, str]]


def write_maps(
    backbone: Backbone,
    source: Source,
    out: Path,
    look: Look,
    *,
    pictures: Iterable[str] = PICTURES,
    raw: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Written, Failed]:
    """Maps of every image of ``source`` into ``out``, one image in memory at a time.

    ``pictures`` says which of PICTURES to write, ``raw`` also asks for ``<name>.npy``, float32 (maps, rows, columns).
    Gives what was written (image, files, grid, size, stride), and the images that cannot be read with the reason.
    """
    written: Written = []
    failed: Failed = []
    for i, name in enumerate(output_names(source)):
        try:
            image = source.read(i)
        except BadImage as e:
            failed.append({"image": source.item_name(i), "reason": e.reason})
        else:
            maps = attention_maps(backbone, image, look)
            files = [save(picture, _beside(out / name, f"_{kind}.png")) for kind, picture in paint(maps, pictures)]
            if raw:
                files.append(_save_array(maps, _beside(out / name, ".npy")))
            height, width = maps.image.shape[:2]
            written.append(
                {
                    "image": source.item_name(i),
                    "files": [str(path) for path in files],
                    "grid": list(maps.grid),
                    "size": [height, width],
                    "stride": maps.stride,
                }
            )
        progress(i + 1, len(source))
    return written, failed


def parse_pictures(words: str) -> list[str]:
    """``sheet,overlay`` -> its words; SpecError for one that is not of PICTURES."""
    found = [word.strip() for word in words.split(",")]
    for word in found:
        if word not in PICTURES:
            raise SpecError(f"--pictures '{word}': no such picture{closest(word, list(PICTURES))}", ", ".join(PICTURES))
    return found


def paint(maps: AttentionMaps, pictures: Iterable[str]) -> list[tuple[str, Picture]]:
    """The pictures asked for, each with its name; of a single map there are no ``heads`` beside its ``mean``."""
    several, wanted = len(maps.raw) > 1, set(pictures)
    found: list[tuple[str, Picture]] = []
    mean = colour(maps.mean.numpy())
    if "heads" in wanted and several:
        found += [(f"head{i}", colour(head.numpy())) for i, head in enumerate(maps.heads)]
    if "masks" in wanted and several:
        found += [(f"mask{i}", black_white(mask.numpy())) for i, mask in enumerate(maps.masks)]
    if "mean" in wanted:
        found.append(("mean", mean))
    if "union" in wanted:
        found.append(("union", black_white(maps.union.numpy())))
    if "overlay" in wanted:
        found.append(("overlay", blend(maps.image, mean)))
    if "sheet" in wanted:
        found.append(("sheet", _sheet(maps, mean)))
    return found


def _sheet(maps: AttentionMaps, mean: Picture) -> Picture:
    """A row of image, mean, overlay and union; where there are several maps, a row of them and one of their masks."""
    several = len(maps.raw) > 1
    first = [
        ("image", maps.image),
        ("mean of heads" if several else "map", mean),
        ("overlay", blend(maps.image, mean)),
        (f"{100 * maps.share:.0f} % of the mass", dim(maps.image, maps.union.numpy())),
    ]
    if not several:
        return sheet(first, len(first))
    rows = [
        first,
        [(f"head {i}", colour(head.numpy())) for i, head in enumerate(maps.heads)],
        [(f"mask of head {i}", dim(maps.image, mask.numpy())) for i, mask in enumerate(maps.masks)],
    ]
    columns = max(map(len, rows))
    blank = ("", maps.image * 0 + 255)
    return sheet([tile for row in rows for tile in row + [blank] * (columns - len(row))], columns)


def _save_array(maps: AttentionMaps, path: Path) -> Path:
    buffer = io.BytesIO()
    np.save(buffer, maps.raw.numpy())
    write_atomically(path, buffer.getvalue())
    return path


def _beside(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


def output_names(source: Source) -> list[str]:
    """A relative path for each image, without suffix, all different, none leading out of the folder."""
    paths = [
        PurePath(source.names[i] if isinstance(source, FileSource) else source.item_name(i)) for i in range(len(source))
    ]
    inside = [path if not path.is_absolute() and ".." not in path.parts else PurePath(path.name) for path in paths]
    safe = [PurePath(re.sub(r"[^\w./ +@-]", "_", printable(str(path)).replace("]", ""))) for path in inside]
    often = Counter(path.with_suffix("") for path in safe)
    names: dict[str, None] = {}  # an ordered set
    for path in safe:
        name = str(path if often[path.with_suffix("")] > 1 else path.with_suffix(""))
        while name in names:
            name += "_"
        names[name] = None
    return list(names)
