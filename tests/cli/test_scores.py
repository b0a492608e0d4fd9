"""Scores as text: of many classes the most frequent mistakes, of few the whole matrix."""

from __future__ import annotations

from typing import Any

import pytest

from sslctl.cli.scores import score_lines
from sslctl.tasks.results import ClassScore

SET = {"name": "flags", "fingerprint": "f"}


def score(classes: int, **more: Any) -> ClassScore:
    facts: dict[str, Any] = {"task": "knn", "top1": 0.5, "top5": 1.0, "interval": (0.4, 0.6), "n_train": 9, "n_test": 9}
    facts |= {"classes": classes, "protocol": {"name": "knn", "k": 3, "temperature": 0.07}, "checkpoint": {"path": "p"}}
    facts |= {"data": {"train": SET, "test": SET}, "overlap": {"by": "pixels", "images": 0, "share": 0, "examples": []}}
    return ClassScore(**facts, **more)


@pytest.mark.parametrize("classes", [3, 25])
def test_confusions_fit_a_screen(classes: int) -> None:
    counts = [[5 if i == j else 0 for j in range(classes)] for i in range(classes)]
    counts[0][2], counts[2][1] = 7, 9
    names = [f"class{i}" for i in range(classes)]
    lines = "\n".join(score_lines(score(classes, confusion={"classes": names, "counts": counts}))).splitlines()
    if classes == 3:
        assert lines[-3:] == ["    1 class0 5 . 7", "    2 class1 . 5 .", "    3 class2 . 9 5"]
    else:
        mistakes = ["        9  class2 taken for class1", "        7  class0 taken for class2"]
        assert lines[-3:] == ["  most frequent mistakes", *mistakes]
