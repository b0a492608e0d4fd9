"""``sslctl projection``: embeddings in the plane, as one page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..tasks.results import Projection


def projection(result: Projection) -> str:
    """Lay the embeddings of images out in the plane: a page with thumbnails to move about in, which needs no network.

    Points have the colours of their classes, where images have classes.

    Examples:

      sslctl projection runs/swav-resnet18-photos-1a2b3c photos/ --out map.html

      sslctl projection last.safetensors photos/ --by umap --most 5000
    """
    return result.out
