"""Nearest neighbours of images in feature space, as entries and as a picture."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.source import Source
from ..errors import DataError
from ..evaluate.features.extract import FeatureSet
from ..evaluate.knn.search import neighbours
from .paint import Picture, add_frame, fit_square, tile_sheet

TILE = 96  # px
SAME, OTHER = (40, 160, 60), (200, 60, 50)  # frames around neighbours of the query's class and of other classes


class Neighbours(NamedTuple):
    """The nearest neighbours of queries: their rows and cosine similarities, nearest first."""

    queries: Tensor  # (q,) rows of the query features
    rows: Tensor  # (q, k) rows of the gallery features
    similarity: Tensor  # (q, k)


def nearest(gallery: FeatureSet, queries: FeatureSet, rows: list[int], k: int) -> Neighbours:
    """Find the ``k`` nearest in ``gallery`` of the ``rows`` of ``queries``; fewer if the gallery is smaller.

    If both are the same object, no image is its own neighbour. Raises DataError for a gallery without neighbours.
    """
    same = queries is gallery
    at = torch.tensor(rows)
    k = min(k, len(gallery.x) - same)
    if k < 1:
        raise DataError(f"{gallery.name} holds a single image, which has no neighbour", "give more images")
    parts = list(neighbours(gallery.x, queries.x[at], k + same))
    similarity, nearest_rows = (torch.cat(part) for part in zip(*parts, strict=True))
    if same:  # the image itself moves to the end, even among duplicates; the others keep their order
        order = (nearest_rows == at[:, None]).long().argsort(dim=1, stable=True)[:, :k]
        similarity, nearest_rows = similarity.gather(1, order), nearest_rows.gather(1, order)
    return Neighbours(at, nearest_rows, similarity)


def neighbour_entries(
    result: Neighbours, gallery: FeatureSet, queries: FeatureSet, sources: tuple[Source, Source]
) -> list[dict[str, Any]]:
    """Return name and class of each query and of its neighbours; ``sources`` belong to gallery and queries."""
    source, query_source = sources

    def entry(features: FeatureSet, images: Source, row: int) -> dict[str, Any]:
        image = {"image": images.item_name(int(features.index[row]))}
        label = int(features.labels[row])
        return image | ({} if label < 0 else {"class": features.classes[label]})

    return [
        entry(queries, query_source, int(q))
        | {
            "neighbours": [
                entry(gallery, source, int(row)) | {"similarity": round(float(s), 6)}
                for row, s in zip(rows, similarity, strict=True)
            ]
        }
        for q, rows, similarity in zip(*result, strict=True)
    ]


def class_agreement(entries: list[dict[str, Any]]) -> float | None:
    """Return the share of neighbours with the class of their query, None without labels."""
    hits = [n["class"] == e["class"] for e in entries for n in e["neighbours"] if "class" in n and "class" in e]
    return sum(hits) / len(hits) if hits else None


def draw_neighbours(
    result: Neighbours,
    entries: list[dict[str, Any]],
    gallery: FeatureSet,
    queries: FeatureSet,
    sources: tuple[Source, Source],
) -> Picture:
    """Draw a row for each query and its neighbours with their similarity, framed by whether classes agree."""
    source, query_source = sources
    tiles: list[tuple[str, Picture]] = []
    for entry, q, rows in zip(entries, result.queries, result.rows, strict=True):
        query = fit_square(query_source.read(int(queries.index[q])), TILE)
        tiles.append((entry.get("class", "image")[:15], query))
        for other, row in zip(entry["neighbours"], rows, strict=True):
            tile = fit_square(source.read(int(gallery.index[row])), TILE)
            if "class" in entry and "class" in other:
                tile = add_frame(tile, SAME if entry["class"] == other["class"] else OTHER)
            tiles.append((f"{other['similarity']:.2f} {other.get('class', '')}"[:15], tile))
    return tile_sheet(tiles, 1 + result.rows.shape[1])
