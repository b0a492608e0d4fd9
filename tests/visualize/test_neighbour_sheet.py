"""Nearest neighbours: which they are, who is never its own, agreement of classes, the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sslctl.data.source import ArraySource
from sslctl.errors import DataError
from sslctl.evaluate.features.extract import FeatureSet
from sslctl.visualize.neighbour_sheet import OTHER, SAME, class_agreement, draw_neighbours, nearest, neighbour_entries


def features(x: Tensor, labels: list[int] | None = None, index: list[int] | None = None) -> FeatureSet:
    at = torch.tensor(index if index is not None else range(len(x)))
    own = torch.tensor(labels) if labels is not None else torch.full((len(x),), -1)
    return FeatureSet(x, own, at, ["cat", "dog"], [], "set", "")


def angles(*degrees: float) -> Tensor:
    radians = torch.tensor(degrees).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], 1)


def test_neighbours_are_those_of_the_angle_and_never_oneself() -> None:
    gallery = features(angles(0, 10, 25, 90) * torch.tensor([[1.0], [5.0], [0.1], [2.0]]))
    near = nearest(gallery, gallery, [0, 2], 2)
    assert near.rows.tolist() == [[1, 2], [1, 0]]
    expected = torch.tensor([[10.0, 25.0], [15.0, 25.0]]).deg2rad().cos()
    torch.testing.assert_close(near.similarity, expected)
    assert nearest(gallery, gallery, [3], 9).rows.tolist() == [[2, 1, 0]]
    twins = features(angles(0, 0, 0, 90))
    for i in range(3):
        assert sorted(nearest(twins, twins, [i], 2).rows[0].tolist()) == sorted({0, 1, 2} - {i})
    other = features(angles(24, 88))
    assert nearest(gallery, other, [1, 0], 1).rows.tolist() == [[3], [2]]
    alone = features(angles(0))
    assert nearest(alone, features(angles(5)), [0], 3).rows.tolist() == [[0]]
    with pytest.raises(DataError, match="no neighbour"):
        nearest(alone, alone, [0], 1)


def test_classes_agree_or_not_and_the_frames_say_so() -> None:
    pixels = np.zeros((5, 8, 8, 3), np.uint8) + np.arange(5, dtype=np.uint8)[:, None, None, None] * 50
    source = ArraySource("set", pixels)
    gallery = features(angles(0, 10, 25, 90), [0, 0, 1, 1], [0, 1, 3, 4])  # image 2 could not be read
    near = nearest(gallery, gallery, [0, 3], 2)
    entries = neighbour_entries(near, gallery, gallery, (source, source))
    assert entries[0]["image"] == "set[0]" and entries[0]["class"] == "cat"
    assert [(n["image"], n["class"]) for n in entries[0]["neighbours"]] == [("set[1]", "cat"), ("set[3]", "dog")]
    assert entries[0]["neighbours"][0]["similarity"] == pytest.approx(np.cos(np.pi / 18), abs=1e-5)
    assert class_agreement(entries) == 0.5  # of 0: cat, dog; of 90: dog, cat
    page = draw_neighbours(near, entries, gallery, gallery, (source, source))
    top, step = 4 + 14, 96 + 4
    assert page[top + 50, 4 + 50].tolist() == [0, 0, 0]  # the query, without a frame
    assert page[top + 50, 4 + step + 50].tolist() == [50, 50, 50]
    assert page[top, 4 + step].tolist() == list(SAME) and page[top, 4 + 2 * step].tolist() == list(OTHER)
    plain = features(angles(0, 10, 25))
    unlabelled = neighbour_entries(nearest(plain, plain, [0], 2), plain, plain, (source, source))
    assert class_agreement(unlabelled) is None and "class" not in unlabelled[0]
