"""What a set is, counted: sizes, classes, unreadable and repeated images, of files and of arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sslctl.data.folder import open_folder
from sslctl.data.source import ArraySource
from sslctl.data.summary import summarise


@pytest.fixture
def photos(tmp_path: Path, image: Callable[..., np.ndarray]) -> Path:
    for i, size in enumerate([(8, 6), (10, 6), (30, 7), (9, 5)]):
        image(tmp_path / ("cat", "dog")[i % 2] / f"{i}.png", i, size)
    (tmp_path / "dog" / "again.png").write_bytes((tmp_path / "cat" / "0.png").read_bytes())
    (tmp_path / "dog" / "empty.png").write_bytes(b"")
    return tmp_path


def test_files_are_counted_and_compared(photos: Path) -> None:
    source = open_folder(str(photos), "train")
    seen: list[int] = []
    summary = summarise(source, report=seen.append)
    assert summary.images == 6 and summary.classes == {"cat": 2, "dog": 4}
    assert summary.widths == (8, 9, 30) and summary.heights == (5, 6, 7)
    assert [(Path(name).name, reason) for name, reason in summary.unreadable] == [
        ("empty.png", "not an image: 0 bytes")
    ]
    assert [[Path(name).name for name in same] for same in summary.duplicates] == [["0.png", "again.png"]]
    assert summary.fingerprint == source.fingerprint() and seen == [1, 2, 3, 4, 5, 6]


def test_only_decoding_finds_what_is_cut_off_behind_its_header(photos: Path) -> None:
    path = photos / "cat" / "2.png"
    path.write_bytes(path.read_bytes()[:200])
    source = open_folder(str(photos), "train")
    assert len(summarise(source).unreadable) == 1
    assert [Path(name).name for name, _ in summarise(source, decode=True).unreadable] == ["2.png", "empty.png"]


def test_arrays_are_compared_by_their_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    pixels[4] = pixels[1]
    summary = summarise(ArraySource("set", pixels))
    assert summary.classes == {} and summary.widths == (6, 6, 6) and summary.heights == (4, 4, 4)
    assert summary.duplicates == [["set[1]", "set[4]"]]


def test_a_set_of_nothing_readable_has_no_sizes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    summary = summarise(open_folder(str(tmp_path), "train"))
    assert summary.widths == (0, 0, 0) and len(summary.unreadable) == 1 and summary.duplicates == []
