"""What the commands that look at images share: which images, their features, and those that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError, Exit
from . import output
from .evaluating import progress
from .options import BatchSize, Device, NoCache, Precision, Workers

if TYPE_CHECKING:
    from ..data import Source
    from ..evaluate.features.extract import Features
    from ..runs.encoder import LoadedEncoder

Images = Annotated[str, typer.Argument(metavar="IMAGES", help="An image, or what --data takes.", show_default=False)]
Size = Annotated[
    int | None,
    typer.Option(
        "--size",
        min=8,
        max=4096,
        help="Side in px of the area to resize to; by default as trained.",
        show_default=False,
    ),
]


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


@dataclass(frozen=True)
class Pass:
    """The options of the commands that take features of images, labelled or not."""

    device: Device = "auto"
    precision: Precision = "fp32"
    workers: Workers = None
    batch_size: BatchSize = 256
    no_cache: NoCache = False

    def features(self, encoder: LoadedEncoder, source: Source, keep: bool = True) -> Features:
        """Features of ``source`` as evaluation takes them: those kept beside the run, or else by a pass."""
        from ..evaluate.features.cache import cache_beside, take_features
        from ..runtime.device import choose_device, choose_dtype, choose_workers

        chosen, image = choose_device(self.device), encoder.meta.image
        what = f"features of {len(source)} images of {source.name}, {encoder.spec.backbone.arch}"
        taken = take_features(
            cache_beside(encoder.path) if keep and not self.no_cache and encoder.path.exists() else None,
            encoder.identity(),
            encoder.backbone,
            source,
            image.transform(),
            batch_size=self.batch_size,
            workers=choose_workers(self.workers),
            device=chosen,
            dtype=choose_dtype(self.precision, chosen),
            starting=lambda: output.note(what),
            progress=progress(),
        )
        if taken.before:
            output.note(f"{what}: taken before (or --no-cache)")
        if taken.unkept:
            output.warn(f"features are not kept: {taken.unkept}")
        return taken.features


def failed_of(features: Sequence[Features]) -> list[dict[str, str]]:
    """The images without features, as ``list_failed`` takes them."""
    return [{"image": name, "reason": reason} for part in features for name, reason in part.skipped]


def list_failed(failed: list[dict[str, str]], total: int) -> None:
    """Name every image that cannot be read; exit with code 3 where there is one. To be called last."""
    for entry in failed:
        output.warn(f"{entry['image']}: {entry['reason']}")
    if failed:
        output.warn(f"{len(failed)} of {total} images cannot be read")
        raise typer.Exit(int(Exit.DATA))
