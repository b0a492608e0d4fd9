"""Caveats are found and put into words: copies across sets, classes without images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sslctl.data.source import ArraySource
from sslctl.evaluate.caveats import absent_classes, overlap

from .judged import scored


def images(n: int, seed: int, labels: list[int] | None = None, classes: str = "") -> ArraySource:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    return ArraySource(f"set{seed}", pixels, None if labels is None else np.array(labels), classes.split())


def test_sets_without_a_common_image_are_said_to_have_none() -> None:
    facts, notes = overlap(images(5, 0), images(4, 1))
    assert facts == {"overlap": {"by": "pixels", "images": 0, "share": 0.0, "examples": []}} and notes == []


def test_copies_are_counted_named_and_left_out_of_the_score() -> None:
    train, test = images(5, 0), images(4, 1)
    test.array[[1, 3]] = train.array[[4, 0]]
    score = scored([0, 1, 0, 0], [0, 1, 1, 0])
    facts, (note,) = overlap(train, test, score, torch.arange(4))
    found = facts["overlap"]
    assert (found["images"], found["share"]) == (2, 0.5)
    assert sorted(found["examples"]) == [["set1[1]", "set0[4]"], ["set1[3]", "set0[0]"]]
    assert found["top1_without"] == 0.5, "images 0 and 2, of which one is right"
    assert note.startswith("2 of 4 test images are in the training set as well") and "top-1 is 50.0 %" in note


def test_in_a_single_set_copies_are_of_one_another() -> None:
    both = images(4, 0)
    both.array[2] = both.array[0]
    facts, (note,) = overlap(both, both)
    assert facts["overlap"]["images"] == 2 and "have a copy among the others" in note


def test_classes_without_an_image_are_named() -> None:
    train, test = images(3, 0, [0, 0, 1], "ant bee cow dog eel"), images(2, 1, [0, 1], "ant bee cow dog eel")
    facts, notes = absent_classes(train, test)
    assert facts["classes_absent"] == {"train": ["cow", "dog", "eel"], "test": ["cow", "dog", "eel"]}
    assert notes[0] == "3 of 5 classes have no training image: cow, dog, eel"
    full = images(2, 2, [0, 1], "ant bee")
    assert absent_classes(full, full) == ({}, []) and absent_classes(images(2, 0), images(2, 1)) == ({}, [])


@pytest.mark.parametrize("draws", [1, 3])
def test_the_score_without_copies_is_over_all_draws(draws: int) -> None:
    train, test = images(3, 0), images(2, 1)
    test.array[0] = train.array[0]
    score = scored([0, 1] * draws, [1, 1] * draws)
    assert overlap(train, test, score, torch.arange(2))[0]["overlap"]["top1_without"] == 1.0
