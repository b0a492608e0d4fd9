"""Several evaluations as one score: means, spread, notes once, and every prediction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sslctl.evaluate.repeats import average, over_seeds
from sslctl.evaluate.score import wilson

from .judged import scored


def test_means_and_spread_are_those_of_the_scores() -> None:
    parts = [scored([0, 1, 2, 0], [0, 1, 2, 2], k=20), scored([0, 0, 0, 0], [0, 1, 2, 2], k=20)]
    parts[0] = replace(parts[0], notes=("a", "b"))
    parts[1] = replace(parts[1], notes=("b", "c"))
    whole = average(parts, "draws_top1", {"draws": 2}, notes=["first"])
    assert whole.top1 == pytest.approx(0.5) and whole.protocol["draws_top1"] == [0.75, 0.25]
    assert whole.protocol["spread"] == pytest.approx(float(np.std([0.75, 0.25], ddof=1)))
    assert whole.protocol["k"] == 20 and whole.protocol["draws"] == 2
    assert whole.notes == ("first", "a", "b", "c") and len(whole.predictions.rank) == 8
    assert whole.interval == wilson(0.5, 4), "of the test images, which are four however many draws there are"


def test_seeds_follow_one_another_and_a_single_one_stays_as_it_is() -> None:
    asked: list[int] = []

    def evaluate(seed: int) -> object:
        asked.append(seed)
        return scored([0] if seed % 2 else [1], [0])

    alone = over_seeds(evaluate, 5, 1)  # type: ignore[arg-type]
    assert "spread" not in alone.protocol and alone.top1 == 1.0
    three = over_seeds(evaluate, 5, 3)  # type: ignore[arg-type]
    assert asked == [5, 5, 6, 7] and three.protocol["seeds_top1"] == [1.0, 0.0, 1.0] and three.protocol["seeds"] == 3
