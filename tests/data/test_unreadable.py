"""Images that cannot be read: the next one is taken, until there are too many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sslctl.data.folder import open_folder
from sslctl.data.source import FileSource
from sslctl.data.unreadable import check_bad, check_some_readable, next_readable, nothing_readable
from sslctl.errors import DataError


@pytest.fixture
def five(tmp_path: Path, image: Callable[..., np.ndarray]) -> FileSource:
    """Five files, of which 1, 3 and 4 are no images."""
    for i in range(5):
        image(tmp_path / f"{i}.png", i)
    for i, content in ((1, b""), (3, b"<html>"), (4, b"<html>")):
        (tmp_path / f"{i}.png").write_bytes(content)
    return open_folder(str(tmp_path), "train")


@pytest.mark.parametrize(
    ("index", "at", "bad"),
    [(0, 0, []), (1, 2, [1]), (3, 0, [3, 4]), (4, 0, [4])],
    ids=["good", "next", "wraps", "last"],
)
def test_the_next_readable_image_is_taken_cyclically(five: FileSource, index: int, at: int, bad: list[int]) -> None:
    found, pixels, before = next_readable(five, index)
    assert found == at and np.array_equal(pixels, five.read(at))
    assert [i for i, _ in before] == bad and all(reason.startswith("not an image") for _, reason in before)


def test_a_set_without_a_readable_image_is_refused(five: FileSource) -> None:
    check_some_readable(five)
    none = five.take(np.array([1, 3, 4]))
    for check in (check_some_readable, lambda source: next_readable(source, 2)):
        with pytest.raises(DataError, match="none of the 3 images"):
            check(none)


def test_one_readable_image_between_the_probes_is_enough(five: FileSource) -> None:
    check_some_readable(five.take(np.array([1] * 40 + [0] + [3] * 60)), probes=4)


def test_a_strict_run_takes_none_and_another_its_share(five: FileSource) -> None:
    bad = {3: "not an image", 1: "0 bytes"}
    check_bad(five, {}, fail=True, limit=0)
    check_bad(five, bad, fail=False, limit=0.4)
    with pytest.raises(DataError, match=r"1\.png: 0 bytes"):
        check_bad(five, bad, fail=True, limit=1)
    with pytest.raises(DataError, match=r"2 of 5 images .* more than 39\.00%.*first .*1\.png") as refused:
        check_bad(five, bad, fail=False, limit=0.39)
    assert "data.bad_limit" in refused.value.hint


def test_reasons_are_counted_and_the_rare_ones_summed(five: FileSource) -> None:
    reasons = ["a"] * 4 + ["b"] * 3 + ["c"] * 2 + ["d", "e"]
    assert "4x a, 3x b, 2x c, 2 other reasons" in nothing_readable(five, dict(enumerate(reasons))).message
