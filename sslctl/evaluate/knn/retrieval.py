"""Retrieval: how high the images of its own class stand among all when an image is looked up; mAP and recall@k."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..score import Score, bootstrap

RECALL = (1, 5, 10)


class Retrieval:
    """Collects average precision and recall of every test image, part by part of a pass of ``neighbours``.

    Average precision is exact, over all training images: the mean, over those of the image's own class, of the
    precision among all that are at least as near (as sklearn.metrics.average_precision_score has it, so images of
    equal similarity share a rank). Recall@k is that of metric learning (Jegou et al. 2011): the share of images of
    which one of the k nearest is of their class. Images of whose class the training set has none are left out.
    """

    def __init__(self, train: Tensor, test: Tensor, alone: bool) -> None:
        self.train, self.test, self.alone = train, test, alone
        self.precision: list[Tensor] = []
        self.hits: list[Tensor] = []

    def look(self, start: int, similarity: Tensor) -> None:
        """Take all similarities (b, n) of the test images from ``start`` on, which are overwritten."""
        labels = self.test[start : start + len(similarity)]
        rows = similarity.numpy()
        train = self.train.numpy()
        own = []
        for row, label in zip(rows, labels.numpy(), strict=True):
            near = row[train == label]
            own.append(np.sort(near[near > -np.inf]))
        rows.sort(axis=1)
        precisions = [_average_precision(row, near) for row, near in zip(rows, own, strict=True)]
        self.precision.append(torch.tensor(precisions, dtype=torch.float64))

    def first(self, near: Tensor, own: Tensor) -> None:
        """Take classes (b, k) of the nearest training images, and those of the images themselves (b,)."""
        same = near == own[:, None]
        self.hits.append(torch.stack([same[:, :k].any(1) for k in RECALL], 1))

    def beside(self, score: Score) -> Score:
        """Return ``score`` with mAP, its 95 % interval (bootstrap over images), recall@k and queries."""
        precision, hits = torch.cat(self.precision), torch.cat(self.hits)
        known = ~precision.isnan()
        found: dict[str, Any] = {"queries": int(known.sum())}
        if found["queries"]:
            precision, recall = precision[known], hits[known].double().mean(0)
            found |= {"map": float(precision.mean()), "map_interval": list(bootstrap(precision))}
            found["recall"] = {str(k): float(r) for k, r in zip(RECALL, recall, strict=True)}
        left = len(known) - found["queries"]
        notes = (f"retrieval leaves out {left} images of whose class there is no other",) if left else ()
        return replace(score, retrieval=found, notes=score.notes + notes)


def _average_precision(every: np.ndarray[Any, Any], own: np.ndarray[Any, Any]) -> float:
    """Return the average precision from ascending similarities of all and of right images; or NaN."""
    if not len(own):
        return float("nan")
    above = len(every) - np.searchsorted(every, own, "left")
    right = len(own) - np.searchsorted(own, own, "left")
    return float((right / above).mean())
