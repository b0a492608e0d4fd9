"""What --data means, how a set becomes two, and what is said when it cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sslctl.data import open_pair, open_source, split_source
from sslctl.data.in_memory import HeldSource
from sslctl.data.opening import has_own_val
from sslctl.data.source import ArraySource, FileSource
from sslctl.errors import DataError
from sslctl.spec.schema import DataSpec

from .conftest import MakeImage


def array_source(labels: list[int] | None, n: int = 0, classes: tuple[str, ...] = ("a", "b", "c")) -> ArraySource:
    n = len(labels) if labels is not None else n
    pixels = np.random.default_rng(0).integers(0, 256, (n, 2, 2, 3), dtype=np.uint8)
    return ArraySource(
        "set", pixels, None if labels is None else np.array(labels), classes if labels is not None else ()
    )


def spec(path: object, **more: object) -> DataSpec:
    return DataSpec.model_validate(
        {"path": str(path), **{key: str(v) if isinstance(v, Path) else v for key, v in more.items()}}
    )


def tree(image: MakeImage, root: Path, classes: str, each: int = 2, size: tuple[int, int] = (8, 6)) -> Path:
    for i in range(each):
        for c in classes.split():
            image(root / c / f"{i}.png", i + 10 * len(c), size)
    return root


def test_each_kind_is_opened_by_what_it_is(tmp_path: Path, image: MakeImage) -> None:
    tree(image, tmp_path / "photos", "cat dog")
    (tmp_path / "list.csv").write_text("photos/cat/0.png,x\nphotos/dog/1.png,y\n")
    np.savez(tmp_path / "pack.npz", images=np.zeros((3, 2, 2), np.uint8))
    assert open_source(str(tmp_path / "photos")).classes == ["cat", "dog"]
    assert open_source(str(tmp_path / "list.csv")).classes == ["x", "y"]
    assert len(open_source(str(tmp_path / "pack.npz"))) == 3
    assert len(open_source("demo", split="val")) == 1000


def test_home_is_expanded_and_what_exists_goes_before_a_name(
    tmp_path: Path, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(image, tmp_path / "demo", "cat dog")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(open_source("~/demo")) == 4
    monkeypatch.chdir(tmp_path)
    source = open_source("demo")
    assert len(source) == 4 and source.notes == ["'demo' exists here and is used, not the set of that name"]
    assert not has_own_val("demo")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("phtos", "'phtos' does not exist — did you mean 'photos'"),
        ("cifar", "did you mean 'cifar10"),
        ("{here}/phtos", "did you mean '{here}/photos'"),
        ("{here}/gone/photos", "nor does its folder {here}/gone"),
        ("", "'' does not exist"),
        ("a\0b", "does not exist"),
    ],
)
def test_a_path_that_does_not_exist(
    tmp_path: Path, image: MakeImage, monkeypatch: pytest.MonkeyPatch, path: str, message: str
) -> None:
    tree(image, tmp_path / "photos", "cat dog")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        open_source(path.format(here=tmp_path))
    assert message.format(here=tmp_path) in caught.value.message
    assert "cifar10" in caught.value.hint and caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("name", "hint"), [("a.png", "the folder it lies in"), ("a.tar", "unpack it"), ("a.parquet", "a folder of images")]
)
def test_a_file_of_another_kind(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match="file of no kind") as caught:
        open_source(str(tmp_path / name))
    assert hint in caught.value.hint


def test_a_split_is_seeded_stratified_and_whole() -> None:
    source = array_source([0] * 50 + [1] * 30 + [2] * 20)
    train, val = split_source(source, 0.1, seed=3)
    assert train.labels is not None and val.labels is not None
    assert np.bincount(val.labels).tolist() == [5, 3, 2] and len(train) == 90
    ids = {image.tobytes() for image in np.concatenate([train.array, val.array])}
    assert ids == {image.tobytes() for image in source.array}
    again, other = split_source(source, 0.1, seed=3)[1], split_source(source, 0.1, seed=4)[1]
    assert np.array_equal(val.array, again.array) and not np.array_equal(val.array, other.array)
    assert [val.item_name(i) for i in range(10)] == sorted(
        (val.item_name(i) for i in range(10)), key=lambda s: int(s[4:-1])
    )


def test_a_split_leaves_something_on_both_sides() -> None:
    for labels in ([0, 0], [0, 0, 1, 1], [0, 1], [0, 1, 2, 2]):
        for fraction in (0.001, 0.999):
            train, val = split_source(array_source(labels), fraction, 0)
            assert len(train) and len(val) and len(train) + len(val) == len(labels)
    train, val = split_source(array_source(None, n=7), 0.3, 0)
    assert (len(train), len(val)) == (5, 2) and val.labels is None
    with pytest.raises(DataError, match="too few to split"):
        split_source(array_source([0]), 0.5, 0)


def test_a_pair_from_val_data(tmp_path: Path, image: MakeImage) -> None:
    tree(image, tmp_path / "train", "dog cat fox", 3)
    tree(image, tmp_path / "test", "fox dog cat", 1)
    train, val = open_pair(spec(tmp_path / "train", val=tmp_path / "test"), 0)
    assert isinstance(train, HeldSource) and (len(train), len(val)) == (9, 3)
    assert train.classes == val.classes == ["cat", "dog", "fox"]


def test_a_pair_whose_labels_differ(tmp_path: Path, image: MakeImage) -> None:
    tree(image, tmp_path / "by-year", "2023 2024")
    tree(image, tmp_path / "labelled", "cat dog")
    data = spec(tmp_path / "by-year", val=tmp_path / "labelled")
    with pytest.raises(DataError, match="classes differ"):
        open_pair(data, 0)
    train, val = open_pair(data, 0, labelled=False)
    assert train.labels is None and train.classes == [] and val.classes == ["cat", "dog"]
    assert "training labels are left out: classes differ" in train.notes[0]


def test_a_pair_whose_evaluation_part_lacks_a_class(tmp_path: Path, image: MakeImage) -> None:
    tree(image, tmp_path / "train", "cat dog fox")
    tree(image, tmp_path / "val", "cat fox")
    for labelled in (True, False):
        train, val = open_pair(spec(tmp_path), 0, labelled=labelled)
        assert train.classes == val.classes == ["cat", "dog", "fox"]
    assert val.labels is not None and val.labels.tolist() == [0, 0, 2, 2]


def test_a_pair_from_the_sets_own_part_or_a_share(tmp_path: Path, image: MakeImage) -> None:
    tree(image, tmp_path / "own/train", "cat dog", 5)
    tree(image, tmp_path / "own/val", "dog cat", 1)
    assert has_own_val(str(tmp_path / "own")) and has_own_val("demo") and not has_own_val("eurosat")
    train, val = open_pair(spec(tmp_path / "own"), 0)
    assert (len(train), len(val)) == (10, 2)
    assert train.item_name(0) == str(tmp_path / "own/train/cat/0.png")
    train, val = open_pair(spec(tmp_path / "own/train", val_fraction=0.2), 0)
    assert (len(train), len(val)) == (8, 2)
    assert len({train.item_name(i) for i in range(8)} | {val.item_name(i) for i in range(2)}) == 10


def test_a_pair_in_memory_or_not(tmp_path: Path, image: MakeImage) -> None:
    tree(image, tmp_path, "cat dog", 10)
    held, files = open_pair(spec(tmp_path), 0), open_pair(spec(tmp_path, in_memory=False), 0)
    for a, b in zip(held, files, strict=True):
        assert isinstance(a, HeldSource) and isinstance(b, FileSource)
        assert a.fingerprint() == b.fingerprint() and all(np.array_equal(a.read(i), b.read(i)) for i in range(len(a)))


def test_too_many_unreadable_images(tmp_path: Path, image: MakeImage) -> None:
    tree(image, tmp_path, "cat dog", 20)
    (tmp_path / "cat/3.png").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"1 of 36 images .* more than 1\.00%: 1x not an image") as caught:
        open_pair(spec(tmp_path, val_fraction=0.1), 1)
    assert "cat/3.png" in caught.value.message
    train, val = open_pair(spec(tmp_path, bad_limit=0.2), 1)
    assert len(train.bad) + len(val.bad) == 1
    with pytest.raises(DataError, match=r"cat/3\.png: not an image"):
        open_pair(spec(tmp_path, bad_limit=0.2, bad_images="fail"), 1)


@pytest.mark.parametrize("in_memory", [None, False])
def test_nothing_readable(tmp_path: Path, in_memory: bool | None) -> None:
    for i in range(30):
        (tmp_path / f"{i}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="none of the 27 images .* can be read: 27x not an image: 0 bytes"):
        open_pair(spec(tmp_path, in_memory=in_memory), 0)


def test_one_readable_image_among_many_is_found(tmp_path: Path, image: MakeImage) -> None:
    for i in range(60):
        (tmp_path / f"{i:02}.png").write_bytes(b"")
    image(tmp_path / "07.png")
    train, _ = open_pair(spec(tmp_path, in_memory=False, val="demo"), 0)
    assert isinstance(train, FileSource) and len(train) == 60
