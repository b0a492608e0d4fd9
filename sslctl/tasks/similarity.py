"""Which images are alike to an encoder, as pictures: nearest neighbours, and a map of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Unpack

from . import options as opt
from .feedback import Feedback
from .options import Option, one_of

if TYPE_CHECKING:
    from .results import Neighbours, Projection


@opt.task
def neighbours(
    encoder: opt.Encoder,
    data: opt.Set,
    *,
    out: Annotated[Path, Option("Picture to write, a PNG.")] = Path("neighbours.png"),
    queries: Annotated[
        str | Path | None, Option("An image or images to look up; by default some of DATA.", type=str | None)
    ] = None,
    rows: Annotated[int, Option("Queries, evenly spaced over their set.", min=1, max=100)] = 8,
    k: Annotated[int, Option("Neighbours of each.", min=1, max=100)] = 8,
    **options: Unpack[opt.FeatureOptions],
) -> Neighbours:
    """Draw images and their nearest neighbours by cosine similarity.

    ``result.failed`` lists the images that cannot be read. Raises DataError where none is left.
    """
    from ..visualize.maps.over_time import evenly_spaced
    from ..visualize.neighbour_sheet import class_agreement, draw_neighbours, nearest, neighbour_entries
    from ..visualize.paint import save_png
    from .encoders import Machine, failed_of, features_of, load, open_images
    from .results import Neighbours, Query

    o = opt.with_defaults(opt.FeatureOptions, options)
    feedback, machine = Feedback.of(o), Machine.of(o)
    model = load(encoder, notes=feedback.notes)
    source = open_images(data)
    others = source if queries is None else open_images(queries)
    parts = [features_of(model, source, machine, feedback, store=not o["no_cache"])]
    if others is not source:
        parts.append(features_of(model, others, machine, feedback, store=False))
    gallery, asked, sources = parts[0], parts[-1], (source, others)
    near = nearest(gallery, asked, evenly_spaced(asked.x, rows), k)
    entries = neighbour_entries(near, gallery, asked, sources)
    save_png(draw_neighbours(near, entries, gallery, asked, sources), Path(out))
    failed, same = failed_of(*parts), class_agreement(entries)
    if same is not None:
        feedback.note(f"{100 * same:.0f} % of the neighbours have the class of the image they are near to")
    feedback.warn_unreadable(failed, sum(len(part.x) for part in parts) + len(failed))
    return Neighbours(
        out=str(out),
        arch=model.arch,
        queries=[Query.model_validate(query) for query in entries],
        same_class=same,
        failed=failed,
    )


@opt.task
def projection(
    encoder: opt.Encoder,
    data: opt.Set,
    *,
    out: Annotated[Path, Option("Page to write, HTML.")] = Path("projection.html"),
    by: Annotated[str, Option("pca, or umap (pip install 'sslctl[umap]').")] = "pca",
    most: Annotated[int, Option("Images on the page, evenly spaced over the set.", min=3, max=20000)] = 2000,
    seed: opt.Seed = 0,
    **options: Unpack[opt.FeatureOptions],
) -> Projection:
    """Lay the embeddings of images out in the plane, as a page with thumbnails that needs no network.

    ``result.failed`` lists the images that cannot be read. Raises SpecError for fewer than three images, MachineError
    where umap-learn is missing.
    """
    one_of("--by", by, ("pca", "umap"), "projection")

    from ..files import write_atomically
    from ..visualize.projection import project, render_page, subset
    from .encoders import Machine, failed_of, features_of, load, open_images
    from .results import Projection

    o = opt.with_defaults(opt.FeatureOptions, options)
    feedback, machine = Feedback.of(o), Machine.of(o)
    model = load(encoder, notes=feedback.notes)
    source = subset(open_images(data), most)
    features = features_of(model, source, machine, feedback, store=not o["no_cache"])
    places, about = project(features.x, by, seed)
    title = f"{source.name}, as {model.arch} sees it"
    page = render_page(features, places, source, title, about, feedback.counter("thumbnails"))
    write_atomically(Path(out), page)
    failed = failed_of(features)
    feedback.warn_unreadable(failed, len(source))
    return Projection(out=str(out), arch=model.arch, by=by, about=about, images=len(features.x), failed=failed)
