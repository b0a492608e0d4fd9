"""``sslctl neighbours``: images and their nearest neighbours in feature space, as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import output
from .looking import Pass, failed_of, list_failed, open_images
from .opening import open_model
from .options import Json, Model, takes


@takes("given", Pass)
def neighbours(
    model: Model,
    data: Annotated[str, typer.Argument(metavar="DATA", help="Images to look in, as --data.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option(help="Picture to write, a PNG.")] = Path("neighbours.png"),
    queries: Annotated[
        str | None,
        typer.Option(help="An image or images to ask for; by default some of DATA.", show_default=False),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, max=100, help="Queries, evenly spaced over their set.")] = 8,
    k: Annotated[int, typer.Option(min=1, max=100, help="Neighbours of each.")] = 8,
    given: Pass,
    as_json: Json = False,
) -> None:
    """Show images and their nearest neighbours by cosine similarity.

    Where images have classes, neighbours of the query's class are framed in green, others in red.

    Examples:

      sslctl neighbours runs/swav-resnet18-photos-1a2b3c photos/ --out near.png

      sslctl neighbours last.safetensors photos/ --queries mine.jpg --k 12 --json
    """
    from ..visualize.maps.over_time import spaced
    from ..visualize.neighbour_sheet import agreement, describe, draw, nearest
    from ..visualize.paint import save

    encoder = open_model(model)
    source = open_images(data)
    others = source if queries is None else open_images(queries)
    parts = [given.features(encoder, source)]
    if others is not source:
        parts.append(given.features(encoder, others, keep=False))
    looked_in, asked, sources = parts[0], parts[-1], (source, others)
    near = nearest(looked_in, asked, spaced(asked.x, rows), k)
    told = describe(near, looked_in, asked, sources)
    save(draw(near, told, looked_in, asked, sources), out)
    failed = failed_of(parts)
    same = agreement(told)
    result = {
        "out": str(out),
        "arch": encoder.spec.backbone.arch,
        "queries": told,
        "same_class": same,
        "failed": failed,
    }
    if same is not None:
        output.note(f"{100 * same:.0f} % of the neighbours have the class of the image they are near to")
    output.emit(result, as_json, str(out))
    list_failed(failed, sum(len(part.x) for part in parts) + len(failed))
