"""Array packs: every layout that is taken gives the same images; all else is refused, nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from sslctl.data.arrays import open_pack, pack_has_parts
from sslctl.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 2, 0])


def pack(folder: Path, kind: str, metadata: dict[str, str] | None = None, **arrays: Any) -> str:
    path = folder / f"pack.{kind}"
    if kind == "npz":
        np.savez(path, **arrays)
    else:
        save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, path, metadata)
    return str(path)


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW", "NHW1", "N1HW"])
def test_layouts(tmp_path: Path, kind: str, layout: str) -> None:
    grey = IMAGES[..., 0]
    stored, meant = {
        "NHWC": (IMAGES, IMAGES),
        "NCHW": (IMAGES.transpose(0, 3, 1, 2), IMAGES),
        "NHW": (grey, np.stack([grey] * 3, -1)),
        "NHW1": (grey[..., None], np.stack([grey] * 3, -1)),
        "N1HW": (grey[:, None], np.stack([grey] * 3, -1)),
    }[layout]
    source = open_pack(pack(tmp_path, kind, images=stored, labels=LABELS), "train")
    assert np.array_equal(source.array, meant)
    assert np.array_equal(source.read(3), meant[3])
    assert source.classes == ["0", "1", "2"] and source.labels is not None
    assert source.labels.tolist() == LABELS.tolist() and source.labels.dtype == np.int64


def test_names_of_classes_are_sorted_and_labels_follow(tmp_path: Path) -> None:
    names = ["fox", "cat", "dog", "unused"]
    for path in (
        pack(tmp_path, "npz", images=IMAGES, labels=LABELS.astype(np.uint8)[:, None], classes=np.array(names)),
        pack(tmp_path, "safetensors", {"classes": json.dumps(names)}, images=IMAGES, labels=LABELS),
    ):
        source = open_pack(path, "train")
        assert source.classes == ["cat", "dog", "fox", "unused"]
        assert source.labels is not None
        assert [source.classes[label] for label in source.labels] == [names[label] for label in LABELS]


def test_labels_as_names(tmp_path: Path) -> None:
    names = np.array(["fox", "cat", "dog", "fox", "cat"])
    source = open_pack(pack(tmp_path, "npz", images=IMAGES, labels=names), "train")
    assert source.labels is not None and [source.classes[label] for label in source.labels] == names.tolist()


def test_without_labels_and_with_parts(tmp_path: Path) -> None:
    path = pack(tmp_path, "npz", images=IMAGES)
    assert open_pack(path, "train").labels is None and not pack_has_parts(path)
    assert np.array_equal(open_pack(path, "val").array, IMAGES)
    path = pack(
        tmp_path, "npz", train_images=IMAGES, train_labels=LABELS, test_images=IMAGES[:2], test_labels=LABELS[:2]
    )
    assert pack_has_parts(path)
    assert len(open_pack(path, "train")) == 5 and len(open_pack(path, "val")) == 2
    val = open_pack(path, "val")
    assert val.labels is not None and [val.classes[label] for label in val.labels] == ["2", "0"]


def test_taking_some_keeps_names_and_changes_the_fingerprint(tmp_path: Path) -> None:
    source = open_pack(pack(tmp_path, "npz", images=IMAGES, labels=LABELS), "train")
    part = source.take(np.array([4, 1]))
    assert np.array_equal(part.read(0), IMAGES[4]) and part.item_name(0).endswith("[4]")
    assert part.labels is not None and part.labels.tolist() == [0, 0]
    assert part.fingerprint() != source.fingerprint()
    assert source.fingerprint() == open_pack(pack(tmp_path, "safetensors", images=IMAGES), "train").fingerprint()
    changed = IMAGES.copy()
    changed[0, 0, 0, 0] += 1
    assert open_pack(pack(tmp_path, "npz", images=changed), "train").fingerprint() != source.fingerprint()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": IMAGES}, "has no images: its keys are x"),
        ({"images": IMAGES / 255}, r"float64 \(5, 4, 6, 3\), not uint8"),
        ({"images": IMAGES[0, 0]}, "not images in a known layout"),
        ({"images": np.zeros((2, 4, 4, 4), np.uint8)}, "not images in a known layout"),
        ({"images": IMAGES[:0]}, "there are none"),
        ({"images": IMAGES, "labels": LABELS[:3]}, r"labels are int64 \(3,\) for 5 images"),
        ({"images": IMAGES, "labels": LABELS - 1}, "not whole numbers from 0"),
        ({"images": IMAGES, "labels": LABELS / 1}, "not whole numbers from 0"),
        ({"images": IMAGES, "labels": LABELS, "classes": np.array(["a", "b"])}, "2 classes for labels up to 2"),
        ({"images": IMAGES, "labels": LABELS, "classes": np.array(["a", "b", "b"])}, "3 classes for labels up to 2"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_pack(pack(tmp_path, "npz", **arrays), "train")
    assert caught.value.hint


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    path = pack(tmp_path, "npz", images=np.array([Canary(ran)], object))
    with pytest.raises(DataError, match="cannot be read as an array pack"):
        open_pack(path, "train")
    assert not ran.exists()


@pytest.mark.parametrize("name", ["pack.npz", "pack.safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", bytes(100), b"\xff" * 100])
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as an array pack"):
        open_pack(str(tmp_path / name), "train")


def test_a_single_array_is_no_pack(tmp_path: Path) -> None:
    with (tmp_path / "pack.npz").open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(DataError, match="cannot be read as an array pack"):
        open_pack(str(tmp_path / "pack.npz"), "train")
