"""Sources: names, labels by class, fingerprints, and what it takes for two sets to have the same classes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sslctl.data import align_labels
from sslctl.data.source import ArraySource, FileSource, Names, labels_from_names, printable, sort_classes
from sslctl.errors import DataError

from .loading import N


def array_source(labels: list[int] | None, n: int = 0, classes: tuple[str, ...] = ("a", "b", "c")) -> ArraySource:
    n = len(labels) if labels is not None else n
    pixels = np.random.default_rng(0).integers(0, 256, (n, 2, 2, 3), dtype=np.uint8)
    return ArraySource(
        "set", pixels, None if labels is None else np.array(labels), classes if labels is not None else ()
    )


def test_labels_are_matched_by_name() -> None:
    train, val = (
        array_source([0, 1, 2], classes=("cat", "dog", "fox")),
        array_source([0, 1, 1, 2], classes=("fox", "cat", "dog")),
    )
    aligned = align_labels(val, train)
    assert aligned.labels is not None and aligned.labels.tolist() == [2, 0, 0, 1]
    assert aligned.classes == train.classes and np.array_equal(aligned.array, val.array)
    assert val.labels is not None and val.labels.tolist() == [0, 1, 1, 2]  # the one given stays as it was


def test_classes_that_differ_are_named() -> None:
    train, val = array_source([0, 1], classes=("cat", "dog")), array_source([0, 1, 2], classes=("Cat", "dog", "fox"))
    val.name = "val"
    with pytest.raises(DataError, match="classes differ: only in val: Cat, fox; only in set: cat"):
        align_labels(val, train)
    few = array_source([0], classes=("dog",))
    with pytest.raises(DataError, match="only in set: cat"):
        align_labels(few, train)
    assert align_labels(few, train, allow_missing=True).labels is not None
    with pytest.raises(DataError, match="has no labels"):
        align_labels(val, array_source(None, n=2))


def test_a_file_is_read_named_and_measured(files: FileSource) -> None:
    expected = np.asarray(Image.open(files.path(3)))
    assert len(files) == N and np.array_equal(files.read(3), expected)
    assert files.size(3) == expected.shape[:2] and files.item_name(3) == files.path(3)
    part = files.take(np.array([3, 0]))
    assert np.array_equal(part.read(0), expected) and part.labels is not None and files.labels is not None
    assert part.labels.tolist() == files.labels[[3, 0]].tolist() and part.classes == files.classes


def test_the_fingerprint_of_an_array_is_of_its_pixels_or_of_its_identity() -> None:
    pixels = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    plain = ArraySource("set", pixels).fingerprint()
    assert ArraySource("other name", pixels.copy()).fingerprint() == plain
    assert ArraySource("set", pixels[::-1]).fingerprint() != plain
    assert ArraySource("set", pixels.reshape(2, 4, 1, 3)).fingerprint() != plain
    drawn = ArraySource("set", pixels, identity="demo 1")
    assert ArraySource("set", pixels + 1, identity="demo 1").fingerprint() == drawn.fingerprint() != plain
    assert drawn.take(np.array([1, 0])).fingerprint() != drawn.fingerprint()


def test_what_is_read_from_an_array_is_a_copy() -> None:
    source = array_source([0, 1])
    image = source.read(1)
    image[:] = 0
    assert source.read(1).any()


def test_names_of_any_bytes_come_back() -> None:
    names = ["a.jpg", "", "ä b.png", "caf\udce9.jpg", "x" * 300]
    held = Names(names)
    assert len(held) == 5 and [held[i] for i in range(5)] == names
    with pytest.raises(IndexError):
        held[-1]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cats/ä.jpg", "cats/ä.jpg"),
        ("a\nb", "a\\u000ab"),
        ("caf\udce9", "caf\\xe9"),
        ("a\\u000ab", "a\\\\u000ab"),
        ("\U000e0041", "\\U000e0041"),
        ("\x1b[31m", "\\u001b[31m"),
    ],
)
def test_names_are_printable_and_stay_different(name: str, shown: str) -> None:
    assert printable(name) == shown and shown.isprintable()


def test_classes_are_sorted_as_names_or_as_numbers() -> None:
    assert labels_from_names(["b", "a", "10", "b"])[1] == ["10", "a", "b"]
    labels, classes = labels_from_names(["10", "9", "2", "10"])
    assert classes == ["2", "9", "10"] and labels.tolist() == [2, 1, 0, 2]
    labels, classes = sort_classes(np.array([0, 2, 1]), ["9", "10", "1"])
    assert classes == ["1", "9", "10"] and labels.tolist() == [1, 0, 2]
