"""Images and their nearest neighbours in feature space: which they are, and one picture of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.source import Source
from ..errors import DataError
from ..evaluate.features.extract import Features
from ..evaluate.knn.search import neighbours
from .paint import Picture, fit, frame, sheet

TILE = 96  # px
SAME, OTHER = (40, 160, 60), (200, 60, 50)  # frames around neighbours of the query's class, and of another


class Near(NamedTuple):
    """Neighbours of some rows: positions in the sets and cosine similarities, nearest first."""

    queries: Tensor  # (q,) rows of the features asked for
    rows: Tensor  # (q, k) rows of the features looked in
    similarity: Tensor  # (q, k)


def nearest(looked_in: Features, asked: Features, queries: list[int], k: int) -> Near:
    """The ``k`` nearest of ``looked_in`` for rows ``queries`` of ``asked``; fewer where there are no more.

    Where both are the same, no image is its own neighbour. Raises DataError where then none is left.
    """
    own = asked is looked_in
    at = torch.tensor(queries)
    k = min(k, len(looked_in.x) - own)
    if k < 1:
        raise DataError(f"{looked_in.name} holds a single image, which has no neighbour", "give more images")
    parts = list(neighbours(looked_in.x, asked.x[at], k + own))
    similarity, rows = (torch.cat(part) for part in zip(*parts, strict=True))
    if own:  # itself is moved to the end, whatever twins it has; the others keep their order
        order = (rows == at[:, None]).long().argsort(dim=1, stable=True)[:, :k]
        similarity, rows = similarity.gather(1, order), rows.gather(1, order)
    return Near(at, rows, similarity)


def describe(near: Near, looked_in: Features, asked: Features, sources: tuple[Source, Source]) -> list[dict[str, Any]]:
    """For every query its name and class, and those of its neighbours; ``sources`` are of the same order."""
    source, query_source = sources

    def who(features: Features, images: Source, row: int) -> dict[str, Any]:
        found: dict[str, Any] = {"image": images.item_name(int(features.index[row]))}
        label = int(features.labels[row])
        return found | ({} if label < 0 else {"class": features.classes[label]})

    return [
        who(asked, query_source, int(q))
        | {
            "neighbours": [
                who(looked_in, source, int(row)) | {"similarity": round(float(s), 6)}
                for row, s in zip(rows, similarity, strict=True)
            ]
        }
        for q, rows, similarity in zip(*near, strict=True)
    ]


def agreement(told: list[dict[str, Any]]) -> float | None:
    """Share of the neighbours that have the class of the image they are near to; None without labels."""
    hits = [
        n["class"] == entry["class"] for entry in told for n in entry["neighbours"] if "class" in n and "class" in entry
    ]
    return sum(hits) / len(hits) if hits else None


def draw(
    near: Near, told: list[dict[str, Any]], looked_in: Features, asked: Features, sources: tuple[Source, Source]
) -> Picture:
    """A row for every query: itself, then its neighbours with their similarity, framed by whether classes agree."""
    source, query_source = sources
    tiles: list[tuple[str, Picture]] = []
    for entry, q, rows in zip(told, near.queries, near.rows, strict=True):
        query = fit(query_source.read(int(asked.index[q])), TILE)
        tiles.append((entry.get("class", "image")[:15], query))
        for other, row in zip(entry["neighbours"], rows, strict=True):
            tile = fit(source.read(int(looked_in.index[row])), TILE)
            if "class" in entry and "class" in other:
                tile = frame(tile, SAME if entry["class"] == other["class"] else OTHER)
            tiles.append((f"{other['similarity']:.2f} {other.get('class', '')}"[:15], tile))
    return sheet(tiles, 1 + near.rows.shape[1])
