"""Masks of objects: matched by path or name, read as objects, refused where they are no masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslctl.data.decode import BadImage
from sslctl.data.source import FileSource
from sslctl.errors import DataError
from sslctl.visualize.maps.true_masks import TrueMasks, split_objects


def write(path: Path, levels: list[list[int]] | np.ndarray, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(levels, np.uint8)).convert(mode).save(path)
    return path


def source(*names: str) -> FileSource:
    return FileSource("photos", "/photos", names)


def test_masks_belong_by_path_first_and_by_a_name_that_is_alone(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "c/2.bmp", "c/note.txt"):
        write(tmp_path / name, [[1]]) if not name.endswith("txt") else (tmp_path / name).write_text("x")
    truth = TrueMasks(tmp_path)
    found = truth.pairs(source("b/1.jpg", "2.jpg", "other/1.jpg", "c/note.jpg"))
    assert found == [(0, tmp_path / "b" / "1.png"), (1, tmp_path / "c" / "2.bmp")]
    assert [Path(name).name for name in truth.missing] == ["1.jpg", "note.jpg"]
    with pytest.raises(DataError, match="none of its 3 masks belongs to photos"):
        truth.pairs(source("x.jpg"))
    with pytest.raises(DataError, match="no such folder"):
        TrueMasks(tmp_path / "gone")


@pytest.mark.parametrize(
    ("levels", "objects"),
    [
        ([[0, 0]], []),
        ([[0, 255]], [[[False, True]]]),
        ([[0, 1], [2, 255]], [[[False, True], [False, False]], [[False, False], [True, False]]]),
        ([[7, 7]], [[[True, True]]]),
    ],
)
def test_levels_are_objects_and_255_beside_others_is_void(
    levels: list[list[int]], objects: list[list[list[bool]]]
) -> None:
    assert split_objects(np.array(levels)).tolist() == objects


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_masks_of_grey_levels_and_palettes_are_read(mode: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.png", [[0, 255], [255, 0]], mode)
    found = TrueMasks(tmp_path).read(path)
    assert found.shape[1:] == (2, 2) and found.any(0).sum() in (2, 4)


def test_pictures_and_broken_files_are_no_masks(tmp_path: Path) -> None:
    truth = TrueMasks(tmp_path)
    with pytest.raises(BadImage, match="is in colour"):
        truth.read(write(tmp_path / "rgb.png", [[0, 9]], "RGB"))
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(BadImage, match=r"torn\.png cannot be read"):
        truth.read(tmp_path / "torn.png")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    with pytest.raises(BadImage, match="64 megapixels"):
        truth.read(tmp_path / "huge.png")
