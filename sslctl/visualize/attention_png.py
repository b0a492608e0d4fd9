"""Attention maps of images as PNG files: every head, their mean, an overlay, and a sheet of all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

from ..backbones import Backbone
from ..data.decode import BadImage
from ..data.source import FileSource, Source, printable
from .attention import AttentionMaps, attention_maps
from .paint import blend, colour, dim, save, sheet


def write_maps(
    backbone: Backbone,
    source: Source,
    out: Path,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    size: int,
    block: int = -1,
    share: float = 0.6,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Maps of every image of ``source`` into ``out``, one image in memory at a time.

    Gives what was written (image, files, grid), and the images that cannot be read with the reason.
    """
    written: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for i, name in enumerate(output_names(source)):
        try:
            image = source.read(i)
        except BadImage as e:
            failed.append({"image": source.item_name(i), "reason": e.reason})
        else:
            maps = attention_maps(backbone, image, mean, std, size=size, block=block, share=share)
            files = [str(path) for path in paint(maps, out / name)]
            written.append({"image": source.item_name(i), "files": files, "grid": list(maps.grid)})
        progress(i + 1, len(source))
    return written, failed


def paint(maps: AttentionMaps, stem: Path) -> list[Path]:
    """Write ``<stem>_head0.png`` ..., ``_mean.png``, ``_overlay.png`` and ``_sheet.png``; their paths."""
    heads = maps.heads.numpy()
    pictures = {f"head{i}": colour(head) for i, head in enumerate(heads)}
    pictures["mean"] = colour(heads.mean(0))
    pictures["overlay"] = blend(maps.image, pictures["mean"])
    columns = max(3, len(heads))
    blank = maps.image * 0 + 255
    first = [("image", maps.image), ("mean of heads", pictures["mean"]), ("overlay", pictures["overlay"])]
    tiles = first + [("", blank)] * (columns - 3)
    for row in (
        [(f"head {i}", pictures[f"head{i}"]) for i in range(len(heads))],
        [(f"mask of head {i}", dim(maps.image, mask.numpy())) for i, mask in enumerate(maps.masks)],
    ):
        tiles += row + [("", blank)] * (columns - len(row))
    pictures["sheet"] = sheet(tiles, columns)
    return [save(picture, stem.with_name(f"{stem.name}_{kind}.png")) for kind, picture in pictures.items()]


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
