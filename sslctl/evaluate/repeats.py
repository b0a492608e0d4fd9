"""Several evaluations as one score: the mean, and how far they lie apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .score import Score, join


def average(scores: Sequence[Score], each: str, own: dict[str, Any], notes: Sequence[str] = ()) -> Score:
    """Return one score for several: the means; in ``protocol`` ``own``, the top-1 of ``each`` and their ``spread``.

    ``spread`` is the standard deviation (n - 1) of top-1, None for a single score; the interval is still that of the
    test images.
    """
    top1 = np.array([s.top1 for s in scores])
    spread = float(top1.std(ddof=1)) if len(scores) > 1 else None
    return replace(
        scores[0],
        top1=float(top1.mean()),
        top5=float(np.mean([s.top5 for s in scores])),
        protocol=dict(scores[0].protocol) | own | {each: top1.tolist(), "spread": spread},
        notes=tuple(dict.fromkeys([*notes, *(line for s in scores for line in s.notes)])),
        predictions=join([s.predictions for s in scores if s.predictions]),
    )


def over_seeds(evaluate: Callable[[int], Score], seed: int, count: int) -> Score:
    """Return the score of ``seed``; for a ``count`` above one the mean over as many seeds from there on."""
    scores = [evaluate(seed + i) for i in range(count)]
    return scores[0] if count == 1 else average(scores, "seeds_top1", {"seeds": count})
