"""What the commands that paint images share: which images, and what becomes of those that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError, Exit
from . import output

if TYPE_CHECKING:
    from ..data import Source

Images = Annotated[str, typer.Argument(metavar="IMAGES", help="An image, or what --data takes.", show_default=False)]


def open_images(images: str) -> Source:
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


def list_failed(failed: list[dict[str, str]], total: int) -> None:
    """Name every image that cannot be read; exit with code 3 where there is one. To be called last."""
    for entry in failed:
        output.warn(f"{entry['image']}: {entry['reason']}")
    if failed:
        output.warn(f"{len(failed)} of {total} images cannot be read")
        raise typer.Exit(int(Exit.DATA))
