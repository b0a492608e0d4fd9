"""The online probe: how good the encoder is while it trains, on labelled images; nothing of the run depends on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..backbones.compiling import uncompiled
from ..data import open_pair
from ..data.source import NO_LABELS, Source
from ..errors import CheckpointError, DataError, DivergedError
from ..runtime import distributed
from ..schedule import Step
from ..spec.schema import DataSpec
from ..views.evaluation import EvalTransform
from .features.extract import FeatureSet, check_pair, extract
from .knn.vote import knn
from .linear.logistic import WITHOUT_CHOICE, fit
from .score import ranks

NEIGHBOURS = 20
TEMPERATURE = 0.07


@dataclass(frozen=True)
class Probe:
    """Scores ``encoder`` as it is at a step, on fresh features of ``train`` and ``test`` under ``transform``.

    In float32, as ``sslctl knn``. It draws nothing, trains nothing but its own classifier and leaves the encoder as it
    was, to the bit (``extract`` sees to that), so a run with it and one without it end in the same weights.
    """

    encoder: nn.Module
    train: Source
    test: Source
    transform: EvalTransform
    device: torch.device
    workers: int
    batch_size: int = 256

    def __call__(self, step: Step) -> dict[str, float]:
        """Return ``probe_knn`` (k 20, temperature 0.07) and ``probe_linear`` (L-BFGS, L2 0.01): top-1 in [0, 1].

        Several processes share the pass over the images; the first one scores, and tells the others.
        Raises DivergedError where features are not finite.
        """
        try:
            with uncompiled():
                train, test = self._features(self.train), self._features(self.test)
        except CheckpointError as e:
            raise DivergedError(f"step {step.index + 1}: {e.message}", "lower --lr, or --precision fp32") from e
        return distributed.by_first(lambda: _scores(train, test))

    def _features(self, source: Source) -> FeatureSet:
        return extract(
            self.encoder,
            source,
            self.transform,
            batch_size=self.batch_size,
            workers=self.workers,
            device=self.device,
        )


def _scores(train: FeatureSet, test: FeatureSet) -> dict[str, float]:
    check_pair(train, test)
    near = knn(train, test, [NEIGHBOURS], [TEMPERATURE])[0]
    return {"probe_knn": near.top1, "probe_linear": _linear(train, test)}


def _linear(train: FeatureSet, test: FeatureSet) -> float:
    model, _ = fit(train.x, train.labels, len(train.classes), WITHOUT_CHOICE)
    return float((ranks(model(test.x), test.labels) == 0).double().mean())


def open_probe(path: str, limit: int, seed: int, option: str = "--probe-data") -> tuple[Source, Source]:
    """Open labelled images for a probe, to learn from and to test on, ``limit`` of each at most.

    Raises DataError where they have no labels or a single class.
    """
    train, test = (some(source, limit, seed) for source in open_pair(DataSpec(path=path), seed))
    for source in (train, test):
        if source.labels is None:
            raise DataError(f"{option}: {source.name} has no labels", NO_LABELS)
    if len(train.classes) < 2:
        raise DataError(f"{option}: {train.name} has a single class", "give images of two classes or more")
    return train, test


def some(source: Source, limit: int, seed: int) -> Source:
    """Return ``source``, or ``limit`` of its images where there are more, drawn with ``seed``, in its order."""
    if len(source) <= limit:
        return source
    return source.take(np.sort(np.random.default_rng(seed).permutation(len(source))[:limit]))
