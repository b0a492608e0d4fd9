"""Folders: which files count, once each, when sub-folders are classes, when they are parts."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest

from sslctl.data.folder import find_images, folder_parts, open_folder
from sslctl.errors import DataError

from .conftest import MakeImage


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_class_folders_give_labels_by_sorted_name(tmp_path: Path, image: MakeImage) -> None:
    pixels = {name: image(tmp_path / name, i) for i, name in enumerate(["dog/b.png", "cat/z.png", "dog/a.png"])}
    source = open_folder(str(tmp_path), "train")
    assert source.classes == ["cat", "dog"]
    assert source.labels is not None and source.labels.tolist() == [0, 1, 1]
    assert [source.names[i] for i in range(3)] == ["cat/z.png", "dog/a.png", "dog/b.png"]
    assert np.array_equal(source.read(1), pixels["dog/a.png"])
    assert source.item_name(1) == str(tmp_path / "dog/a.png")


def test_numbered_classes_sort_as_numbers(tmp_path: Path) -> None:
    touch(tmp_path, "10/a.png", "2/a.png", "1/a.png")
    assert open_folder(str(tmp_path), "train").classes == ["1", "2", "10"]


def test_empty_and_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.png", ".ipynb_checkpoints/b.png", "cat/.hidden.png", "cat/._a.png", "notes/readme.md")
    touch(
        tmp_path, "dog/.ipynb_checkpoints/c.png", "dog/d.jfif", "dog/e.AVIF", "dog/@eaDir/e.jpg", "__MACOSX/cat/a.png"
    )
    (tmp_path / "empty").mkdir()
    source = open_folder(str(tmp_path), "train")
    assert source.classes == ["cat", "dog"]
    assert [source.names[i] for i in range(len(source))] == ["cat/a.png", "dog/d.jfif", "dog/e.AVIF"]


@pytest.mark.parametrize(
    "names",
    [["a.png", "b.jpg"], ["a.png", "cat/b.png"], ["2023/01/a.png", "2024/02/b.png"], ["cat/a.png", "dog/puppy/b.png"]],
)
def test_other_shapes_of_folder_have_no_labels(tmp_path: Path, names: list[str]) -> None:
    touch(tmp_path, *names)
    source = open_folder(str(tmp_path), "train")
    assert (source.labels, source.classes, len(source)) == (None, [], 2)


def test_parts(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/a.png", "train/dog/b.png", "test/cat/c.png", "masks/train/cat/a.png")
    assert folder_parts(str(tmp_path)) == {"train": "train", "val": "test"}
    train, val = open_folder(str(tmp_path), "train"), open_folder(str(tmp_path), "val")
    assert [train.names[i] for i in range(len(train))] == ["cat/a.png", "dog/b.png"]
    assert train.classes == ["cat", "dog"] and val.classes == ["cat"]
    touch(tmp_path, "val/cat/d.png")
    assert folder_parts(str(tmp_path)) == {"train": "train", "val": "val"}


def test_a_class_called_train_is_no_part(tmp_path: Path) -> None:
    touch(tmp_path, "car/a.png", "train/b.png")
    assert folder_parts(str(tmp_path)) is None
    assert open_folder(str(tmp_path), "val").classes == ["car", "train"]


def test_loops_and_doubled_links_are_visited_once(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.png", "dog/b.png")
    os.symlink("..", tmp_path / "cat/loop")
    os.symlink("dog", tmp_path / "also-dog")
    os.symlink(tmp_path / "cat", tmp_path / "dog/cats")
    assert find_images(str(tmp_path)).names == ["cat/a.png", "dog/b.png"]


def test_links_out_of_the_folder_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/cat/a.png", "elsewhere/single.png")
    (tmp_path / "here/dog").mkdir(parents=True)
    os.symlink(tmp_path / "elsewhere/cat", tmp_path / "here/cat")
    os.symlink(tmp_path / "elsewhere/single.png", tmp_path / "here/dog/b.png")
    source = open_folder(str(tmp_path / "here"), "train")
    assert source.classes == ["cat", "dog"] and len(source) == 2


def test_special_files_are_skipped_and_counted() -> None:
    with tempfile.TemporaryDirectory() as folder:  # short: a socket's path must be
        root = Path(folder)
        touch(root, "a.png", "b.heic", "c.heic")
        os.mkfifo(root / "pipe.png")
        os.symlink("nowhere.png", root / "dangling.png")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"{folder}/socket.png")
            source = open_folder(folder, "train")
    assert len(source) == 1
    assert source.notes == [
        "3 dangling links or special files skipped",
        "image files of formats that cannot be read are left out: 2 .heic",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folders_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "lost+found/b.png")
    (tmp_path / "lost+found").chmod(0)
    try:
        source = open_folder(str(tmp_path), "train")
    finally:
        (tmp_path / "lost+found").chmod(0o700)
    assert len(source) == 1 and source.notes == ["1 folders cannot be listed, first lost+found"]


def test_names_that_are_no_text(tmp_path: Path, image: MakeImage) -> None:
    root = os.fsencode(tmp_path)
    names = [b"caf\xe9/a.png", b"line\nbreak/b.png", "\N{GRINNING FACE}/c.png".encode(), b"\x1b[31m/<script>.png"]
    pixels = {name: image(root + b"/" + name, i) for i, name in enumerate(names)}
    source = open_folder(str(tmp_path), "train")
    shown = {source.item_name(i).removeprefix(f"{tmp_path}/") for i in range(4)}
    assert shown == {
        r"\u001b[31m/<script>.png",
        r"caf\xe9/a.png",
        r"line\u000abreak/b.png",
        "\N{GRINNING FACE}/c.png",
    }
    for i in range(4):
        assert np.array_equal(source.read(i), pixels[os.fsencode(source.names[i])])
    assert len(source.fingerprint()) == 64


def test_an_empty_folder_says_what_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it is empty"):
        open_folder(str(tmp_path), "train")
    touch(tmp_path, "a.txt", "b.txt", "c.dcm")
    with pytest.raises(DataError, match=r"files of other kinds: 2 \.txt, 1 \.dcm") as caught:
        open_folder(str(tmp_path), "train")
    assert "jfif" in caught.value.hint and caught.value.exit_code == 3


def test_the_fingerprint_is_of_names_and_sizes_wherever_they_lie(tmp_path: Path) -> None:
    touch(tmp_path, "one/cat/a.png", "one/dog/b.png", "two/cat/a.png", "two/dog/b.png")
    first, second = (open_folder(str(tmp_path / name), "train").fingerprint() for name in ("one", "two"))
    assert first == second
    (tmp_path / "two/dog/b.png").write_bytes(b"longer")
    assert open_folder(str(tmp_path / "two"), "train").fingerprint() != first
    (tmp_path / "one/cat/a.png").rename(tmp_path / "one/cat/c.png")
    assert open_folder(str(tmp_path / "one"), "train").fingerprint() != first
