"""Where an encoder errs: accuracy class by class, and which class is mistaken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .score import Score, wilson


def confusion(score: Score) -> Tensor:
    """Return (C, C) counts of test images by class (row) and predicted class (column), over all draws."""
    assert score.predictions is not None
    c, pairs = score.classes, score.predictions.label * score.classes + score.predictions.predicted
    return torch.bincount(pairs, minlength=c * c).view(c, c)


def per_class(score: Score, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each class: its test images, top-1 among them and its 95 % interval; None where there is no image."""
    counts = confusion(score)
    times = int(counts.sum()) // score.n_test  # that each image was judged, over draws of labels and seeds
    rows = []
    for name, right, n in zip(classes, counts.diagonal().tolist(), counts.sum(1).tolist(), strict=True):
        share = right / n if n else None
        interval = None if share is None else list(wilson(share, n // times))
        rows.append({"class": name, "images": n // times, "top1": share, "interval": interval})
    return rows


def mean_per_class(rows: Sequence[dict[str, Any]]) -> float:
    """Return the mean of the classes' top-1: rare classes count as much as common ones."""
    shares = [row["top1"] for row in rows if row["top1"] is not None]
    return float(sum(shares) / len(shares))
