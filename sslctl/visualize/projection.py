"""Embeddings in two dimensions as a page of points, thumbnails and classes that opens without a network."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..data.decode import BadImage
from ..data.source import Source
from ..errors import MachineError, SpecError
from ..evaluate.features.extract import FeatureSet
from .html import render_html
from .maps.patch_pca import principal_components
from .paint import fit_square

TEMPLATE = Path(__file__).with_name("projection.html")
THUMB = 48  # px
QUALITY = 80  # of the thumbnails' JPEG


def project(x: Tensor, method: str, seed: int = 0) -> tuple[NDArray[np.float32], str]:
    """Project features ``x`` (n, D) to the plane (n, 2), and describe the projection.

    Features are normalised to unit length, as for nearest neighbours. ``pca`` takes the first two principal components,
    ``umap`` is UMAP (McInnes et al. 2018) by cosine, random by ``seed``. Raises SpecError for too few images,
    MachineError if umap-learn is missing.
    """
    x = F.normalize(x, dim=1)
    if len(x) < 3:
        raise SpecError(f"{len(x)} images cannot be laid out", "give three or more")
    if method == "pca":
        mean, axes, shares = principal_components(x.double(), 2)
        return ((x.double() - mean) @ axes.T).float().numpy(), f"PCA, {100 * sum(shares):.0f} % of the variance"
    try:
        import umap
    except ImportError as e:
        raise MachineError("--by umap needs umap-learn, which is not installed", "pip install 'sslctl[umap]'") from e
    neighbours = min(15, len(x) - 1)
    start = "spectral" if len(x) > 10 else "random"  # spectral initialisation fails for a handful of points
    reducer = umap.UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, init=start, n_jobs=1)
    return np.asarray(reducer.fit_transform(x.numpy()), np.float32), f"UMAP, {neighbours} neighbours, seed {seed}"


def render_page(
    features: FeatureSet,
    places: NDArray[np.float32],
    source: Source,
    title: str,
    about: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> bytes:
    """Render the page of ``features`` at ``places`` (n, 2): a canvas to zoom and move, with embedded thumbnails.

    Text from files is escaped; the page allows its own script, by hash, and no address.
    """
    low, high = places.min(0), places.max(0)
    unit = (places - low) / np.maximum(high - low, 1e-12).max()
    data: dict[str, Any] = {
        "x": unit[:, 0].round(5).tolist(),
        "y": unit[:, 1].round(5).tolist(),
        "label": features.labels.tolist(),
        "classes": features.classes,
        "names": [source.item_name(int(i)) for i in features.index],
        "thumb": THUMB,
        "columns": math.ceil(math.sqrt(len(unit))),
    }
    page = render_html(
        TEMPLATE,
        title=title,
        about=about,
        data=data,
        sprite=base64.b64encode(thumbnails(source, features.index.tolist(), data["columns"], progress)).decode(),
    )
    return page.encode()


def thumbnails(
    source: Source, index: Sequence[int], columns: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> bytes:
    """Arrange the images at ``index`` in rows of ``columns`` as a JPEG; unreadable ones stay grey."""
    rows = -(-len(index) // columns)
    page = Image.new("RGB", (columns * THUMB, rows * THUMB), (128, 128, 128))
    for place, i in enumerate(index):
        try:
            tile = fit_square(source.read(i), THUMB)
        except BadImage:
            continue
        page.paste(Image.fromarray(tile), (place % columns * THUMB, place // columns * THUMB))
        progress(place + 1, len(index))
    buffer = io.BytesIO()
    page.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def subset(source: Source, most: int) -> Source:
    """Return ``source``, or ``most`` of its images evenly spaced if it has more."""
    if len(source) <= most:
        return source
    return source.take(torch.linspace(0, len(source) - 1, most).round().long().numpy())
