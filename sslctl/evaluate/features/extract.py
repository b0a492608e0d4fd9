"""Frozen features of a set of images: one pass of an encoder that stays, to the bit, as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn

from ...data.source import NO_LABELS, Source
from ...data.unreadable import nothing_readable
from ...errors import DataError
from ...views.evaluation import EvalTransform
from .stream import PassOptions, Unreadable, stream


@dataclass(frozen=True)
class FeatureSet:
    """Features of the readable images of a set, in its order."""

    x: Tensor  # float32 (n, d)
    labels: Tensor  # int64 (n,), -1 everywhere where the set has none
    index: Tensor  # int64 (n,), position in the set
    classes: list[str]
    skipped: list[tuple[str, str]]  # names of unreadable images, and why
    name: str
    fingerprint: str
    unreadable: Unreadable = field(default_factory=list)  # the same by position

    def take(self, rows: Tensor) -> FeatureSet:
        """Return the features of some images, by row."""
        return replace(self, x=self.x[rows], labels=self.labels[rows], index=self.index[rows])


def extract(
    encoder: nn.Module,
    source: Source,
    transform: EvalTransform,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Unpack[PassOptions],
) -> FeatureSet:
    """Return features of all readable images of ``source`` from ``encoder``: (B, 3, S, S) -> (B, d), held in memory.

    The pass is that of ``stream``, which says what it leaves alone and how several processes share it: each of them
    has all features in the end. ``progress`` hears (images done, of how many). Images in memory need no loader
    processes.
    Raises DataError where no image can be read, CheckpointError where a feature is not finite.
    """
    index: list[int] = []
    skipped: Unreadable = []
    parts: list[Tensor] = []
    for chunk in stream(encoder, source, transform, **options):
        if chunk.positions:
            parts.append(chunk.x)
        index += chunk.positions
        skipped += chunk.bad
        progress(chunk.done, len(source))
    if not index:
        raise nothing_readable(source, dict(skipped))
    return with_labels(source, torch.cat(parts), torch.tensor(index), skipped)


def check_pair(train: FeatureSet, test: FeatureSet) -> None:
    """Raise DataError where the two sets cannot be one experiment."""
    for part in (train, test):
        if bool((part.labels < 0).any()):
            raise DataError(f"{part.name} has no labels to evaluate with", NO_LABELS)
    if train.classes != test.classes:
        raise DataError(
            f"the classes of {train.name} and {test.name} are not the same", "give sets whose class names agree"
        )
    if len(train.classes) < 2:
        raise DataError(f"{train.name} has a single class, '{train.classes[0]}'", "evaluation needs two or more")
    if train.x.shape[1] != test.x.shape[1]:
        raise DataError(f"features of {train.x.shape[1]} and {test.x.shape[1]} numbers do not compare")


def with_labels(source: Source, x: Tensor, index: Tensor, unreadable: Unreadable) -> FeatureSet:
    """Return features ``x`` (n, d) of the images of ``source`` at ``index`` (n,), and what the set says of them."""
    labels = np.full(len(source), -1) if source.labels is None else source.labels
    skipped = [(source.item_name(i), reason) for i, reason in unreadable]
    own = torch.from_numpy(labels)[index]
    return FeatureSet(x, own, index, source.classes, skipped, source.name, source.fingerprint(), unreadable)
