"""``sslctl projection``: embeddings in the plane, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SpecError
from . import output
from .evaluating import progress
from .looking import Pass, failed_of, list_failed, open_images
from .opening import open_model
from .options import Json, Model, Seed, takes


@takes("given", Pass)
def projection(
    model: Model,
    data: Annotated[str, typer.Argument(metavar="DATA", help="Images, as --data.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option(help="Page to write, HTML.")] = Path("projection.html"),
    by: Annotated[str, typer.Option(help="pca, or umap (pip install 'sslctl[umap]').")] = "pca",
    most: Annotated[int, typer.Option(min=3, max=20000, help="Images on the page, evenly spaced over the set.")] = 2000,
    seed: Seed = 0,
    given: Pass,
    as_json: Json = False,
) -> None:
    """Lay the embeddings of images out in the plane: a page with thumbnails to move about in, which needs no network.

    Points have the colours of their classes, where images have classes.

    Examples:

      sslctl projection runs/swav-resnet18-photos-1a2b3c photos/ --out map.html

      sslctl projection last.safetensors photos/ --by umap --most 5000
    """
    if by not in ("pca", "umap"):
        raise SpecError(f"--by '{by}': no such projection", "--by pca or umap")

    from ..files import write_atomically
    from ..visualize.projection import flatten, some, write_page

    encoder = open_model(model)
    source = some(open_images(data), most)
    features = given.features(encoder, source)
    places, about = flatten(features.x, by, seed)
    arch = encoder.spec.backbone.arch
    page = write_page(features, places, source, f"{source.name}, as {arch} sees it", about, progress())
    write_atomically(out, page)
    failed = failed_of([features])
    result = {"out": str(out), "arch": arch, "by": by, "about": about, "images": len(features.x), "failed": failed}
    output.emit(result, as_json, str(out))
    list_failed(failed, len(source))
