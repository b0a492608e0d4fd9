"""``sslctl attn-map``: where a ViT looks, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError, Exit
from . import output
from .evaluating import progress
from .opening import open_model
from .options import Device, Json, Model

if TYPE_CHECKING:
    from ..data import Source


def attn_map(
    model: Model,
    images: Annotated[
        str, typer.Argument(metavar="IMAGES", help="An image, or what --data takes.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the PNG files.")] = Path("maps"),
    block: Annotated[int, typer.Option(help="Which block's attention; -1 is the last.")] = -1,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Share of the mass that a mask keeps.")] = 0.6,
    size: Annotated[
        int | None,
        typer.Option(
            min=8, max=4096, help="Side in px of the area to resize to; by default as trained.", show_default=False
        ),
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Paint what a ViT attends to.

    The attention of the [CLS] token over images of any size: each head, their mean, an overlay, a sheet.

    Images that cannot be read are listed at the end, with exit code 3.

    Examples:

      sslctl attn-map runs/dino-vit_tiny_patch16_224-photos-1a2b3c photo.jpg

      sslctl attn-map last.safetensors photos/ --out maps/ --size 480 --threshold 0.5
    """
    from ..machine import choose_device
    from ..visualize.attention_png import write_maps

    chosen = choose_device(device)
    encoder = open_model(model)
    image = encoder.meta["image"]
    source = _open(images)
    output.note(f"attention of {encoder.spec.backbone.arch} over {len(source)} images, into {out}")
    written, failed = write_maps(
        encoder.backbone.to(chosen),
        source,
        out,
        image["mean"],
        image["std"],
        size=size or image["size"],
        block=block,
        share=threshold,
        progress=progress(),
    )
    for entry in failed:
        output.warn(f"{entry['image']}: {entry['reason']}")
    result = {"out": str(out), "images": written, "failed": failed, "block": block, "threshold": threshold}
    output.emit(result, as_json, "\n".join(entry["files"][-1] for entry in written))
    if failed:
        output.warn(f"{len(failed)} of {len(source)} images cannot be read")
        raise typer.Exit(int(Exit.DATA))


def _open(images: str) -> Source:
    """One image file as a set of its own; otherwise what ``--data`` takes."""
    from ..data import open_source
    from ..data.decode import EXTENSIONS
    from ..data.source import FileSource

    path = Path(images).expanduser()
    if path.is_file() and path.suffix.lower() in EXTENSIONS:
        return FileSource(path.name, str(path.parent), [path.name])
    source = open_source(images)
    if len(source) == 0:
        raise DataError(f"{images}: holds no images")
    return source
