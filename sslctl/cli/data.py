"""``sslctl data``: what a set of images is, and the same set packed for fast reading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SpecError
from . import output
from .options import Download, Force, Json

if TYPE_CHECKING:
    from ..data import Source
    from ..data.summary import Summary

Images = Annotated[str, typer.Argument(metavar="DATA", help="Images, as --data takes them.", show_default=False)]
Split = Annotated[str, typer.Option(help="Part of a set that has several: train or val.")]

_SHOWN = 5


def pack(
    images: Images,
    out: Annotated[Path, typer.Option(help="File to write, ending in .pack.", show_default=False)],
    size: Annotated[int, typer.Option(min=8, max=4096, help="Shorter side in px; smaller images stay as they are.")],
    square: Annotated[
        bool, typer.Option("--square", help="Cut to the central square; otherwise stored whole.")
    ] = False,
    split: Split = "train",
    threads: Annotated[int | None, typer.Option(min=1, max=256, help="By default one for every CPU.")] = None,
    download: Download = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Decode a set once and store its pixels at the size that training needs.

    The file is read by --data wherever images are, without decoding. It is there when it is whole.

    Crops come from the stored pixels: take --size no smaller than what the smallest crops show at full detail.

    Examples:

      sslctl data pack photos/ --size 256 --out photos.pack

      sslctl data pack photos/ --split val --size 256 --out val.pack --json
    """
    if out.suffix.lower() != ".pack":
        raise SpecError(f"--out {out}: a pack's name ends in .pack", f"--out {out.with_suffix('.pack')}")
    if out.exists() and not force:
        raise SpecError(f"--out {out}: exists", "--force replaces it")

    from ..data.packing import write_pack

    source = _open(images, split, download)
    done = write_pack(source, out, size, square=square, threads=threads, report=_reporting(len(source)))
    unreadable = [{"name": source.item_name(i), "reason": reason} for i, reason in sorted(done.bad.items())]
    _tell_unreadable([(bad["name"], bad["reason"]) for bad in unreadable])
    result = {
        "pack": str(out),
        "images": done.images,
        "bytes": done.bytes,
        "classes": len(source.classes),
        "size": size,
        "cut": "square" if square else "whole",
        "unreadable": unreadable,
    }
    output.emit(result, as_json, str(out))


def info(
    images: Images,
    split: Split = "train",
    decode: Annotated[bool, typer.Option("--decode", help="Read every image whole, not its header alone.")] = False,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Say what a set of images is: classes, sizes, what cannot be read, what is there twice.

    Examples:

      sslctl data info photos/

      sslctl data info photos.pack --decode --json
    """
    from ..data.summary import summarise

    source = _open(images, split, download)
    found = summarise(source, decode=decode, report=_reporting(len(source)))
    result = found._asdict() | {"unreadable": [{"name": name, "reason": reason} for name, reason in found.unreadable]}
    output.emit({"name": source.name} | result, as_json, _described(source, found))


def _open(images: str, split: str, download: bool) -> Source:
    from ..data import open_source

    if split not in ("train", "val"):
        raise SpecError(f"--split '{split}': no such part", "train or val")
    source = open_source(images, split="val" if split == "val" else "train", download=download)
    for note in source.notes:
        output.note(note)
    return source


def _reporting(total: int) -> Callable[[int], None]:
    """A line for every tenth of a large set."""
    every = max(1000, total // 10)

    def report(done: int) -> None:
        if done % every == 0:
            output.note(f"{done} of {total} images")

    return report


def _tell_unreadable(bad: list[tuple[str, str]]) -> None:
    for name, reason in bad[:_SHOWN]:
        output.warn(f"{name}: {reason}")
    if len(bad) > _SHOWN:
        output.warn(f"and {len(bad) - _SHOWN} more that cannot be read")


def _described(source: Source, found: Summary) -> str:
    low, middle, high = (f"{w}x{h}" for w, h in zip(found.widths, found.heights, strict=True))
    lines = [
        f"{source.name}: {found.images} images",
        f"  size         {middle} px in the median, from {low} to {high}",
        f"  classes      {_counts(found.classes)}",
        f"  unreadable   {len(found.unreadable)}",
        f"  duplicates   {sum(len(same) - 1 for same in found.duplicates)}",
        f"  fingerprint  {found.fingerprint}",
    ]
    lines += [f"  cannot be read: {name}: {reason}" for name, reason in found.unreadable[:_SHOWN]]
    lines += [f"  the same: {', '.join(same[:_SHOWN])}" for same in found.duplicates[:_SHOWN]]
    return "\n".join(lines)


def _counts(classes: dict[str, int]) -> str:
    if not classes:
        return "none: no labels"
    ordered = sorted(classes.items(), key=lambda pair: -pair[1])
    shown = ", ".join(f"{name} {count}" for name, count in ordered[:_SHOWN])
    more = f", and {len(ordered) - _SHOWN} more down to {ordered[-1][1]}" if len(ordered) > _SHOWN else ""
    return f"{len(classes)}: {shown}{more}"
