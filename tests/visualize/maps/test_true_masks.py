"""True masks: found by path or name, their levels as objects, files that are not masks refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslctl.data.decode import BadImage
from sslctl.data.source import FileSource
from sslctl.errors import DataError
from sslctl.visualize.maps.true_masks import TrueMasks, split_objects


def test_levels_of_a_mask_are_objects() -> None:
    levels = np.array([[0, 1, 1, 7], [0, 255, 7, 7]])
    assert split_objects(levels).astype(int).tolist() == [[[0, 1, 1, 0], [0, 0, 0, 0]], [[0, 0, 0, 1], [0, 0, 1, 1]]]
    assert split_objects(np.array([[0, 255]])).tolist() == [[[False, True]]]
    assert split_objects(np.zeros((2, 3))).shape == (0, 2, 3)


def test_masks_are_found_by_path_or_by_a_name_of_their_own(tmp_path: Path) -> None:
    for folder in ("masks/a", "masks/b", "masks/c"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a/1", "b/1", "c/only"):
        Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "masks" / "c" / "colour.png")
    source = FileSource("in", str(tmp_path), ["a/1.jpg", "x/only.jpg", "x/1.jpg", "c/colour.jpg"])
    truth = TrueMasks(tmp_path / "masks")
    pairs = truth.pairs(source)
    assert [(i, str(p.relative_to(tmp_path / "masks"))) for i, p in pairs] == [
        (0, "a/1.png"),
        (1, "c/only.png"),
        (3, "c/colour.png"),
    ]
    assert [Path(name).name for name in truth.missing] == ["1.jpg"]
    assert truth.read(pairs[0][1]).shape == (1, 4, 4)
    with pytest.raises(BadImage, match="is in colour"):
        truth.read(pairs[2][1])
    with pytest.raises(DataError, match="none of its 4 masks belongs to in"):
        truth.pairs(FileSource("in", str(tmp_path), ["z.jpg"]))


def test_a_damaged_mask_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        TrueMasks(tmp_path / "masks")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(BadImage, match=r"mask broken\.png cannot be read"):
        TrueMasks(tmp_path).read(tmp_path / "broken.png")
