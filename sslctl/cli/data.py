"""``sslctl data``: what a set of images is, and the same set packed for fast reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..tasks.results import DataInfo, DataPack

SHOWN = 5


def pack(result: DataPack) -> str:
    """Decode a set once and store its pixels at the size that training needs.

    The file is read by --data wherever images are, without decoding. It is there when it is whole.

    Crops come from the stored pixels: take --size no smaller than what the smallest crops show at full detail.

    Examples:

      sslctl data pack photos/ --size 256 --out photos.pack

      sslctl data pack photos/ --split val --size 256 --out val.pack --json
    """
    return result.pack


def info(result: DataInfo) -> str:
    """Say what a set of images is: classes, sizes, what cannot be read, what is there twice.

    Examples:

      sslctl data info photos/

      sslctl data info photos.pack --decode --json
    """
    low, middle, high = (f"{w}x{h}" for w, h in zip(result.widths, result.heights, strict=True))
    lines = [
        f"{result.name}: {result.images} images",
        f"  size         {middle} px in the median, from {low} to {high}",
        f"  classes      {_counts(result.classes)}",
        f"  unreadable   {len(result.unreadable)}",
        f"  duplicates   {sum(len(same) - 1 for same in result.duplicates)}",
        f"  fingerprint  {result.fingerprint}",
    ]
    lines += [f"  cannot be read: {one.name}: {one.reason}" for one in result.unreadable[:SHOWN]]
    lines += [f"  the same: {', '.join(same[:SHOWN])}" for same in result.duplicates[:SHOWN]]
    return "\n".join(lines)


def _counts(classes: dict[str, int]) -> str:
    if not classes:
        return "none: no labels"
    ordered = sorted(classes.items(), key=lambda pair: -pair[1])
    shown = ", ".join(f"{name} {count}" for name, count in ordered[:SHOWN])
    more = f", and {len(ordered) - SHOWN} more down to {ordered[-1][1]}" if len(ordered) > SHOWN else ""
    return f"{len(classes)}: {shown}{more}"
