"""Accuracy class by class, counted by hand."""

from __future__ import annotations

import pytest

from sslctl.evaluate.detail import confusion, mean_per_class, per_class
from sslctl.evaluate.repeats import average
from sslctl.evaluate.score import wilson

from .judged import scored


def test_the_matrix_has_actual_classes_in_rows() -> None:
    assert confusion(scored([0, 1, 1, 0], [0, 0, 1, 1])).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_each_class_has_its_images_its_share_and_an_interval() -> None:
    rows = per_class(scored([0, 0, 1, 1, 1], [0, 0, 0, 1, 1]), ["a", "b", "c"])
    assert [(row["class"], row["images"], row["top1"]) for row in rows] == [
        ("a", 3, 2 / 3),
        ("b", 2, 1.0),
        ("c", 0, None),
    ]
    assert rows[0]["interval"] == list(wilson(2 / 3, 3)) and rows[2]["interval"] is None
    assert mean_per_class(rows) == pytest.approx((2 / 3 + 1) / 2), "a class without images does not count"


def test_several_draws_judge_each_image_as_often() -> None:
    twice = average([scored([0, 1], [0, 1]), scored([1, 1], [0, 1])], "draws_top1", {})
    rows = per_class(twice, ["a", "b", "c"])
    assert [(row["images"], row["top1"]) for row in rows[:2]] == [(1, 0.5), (1, 1.0)]
