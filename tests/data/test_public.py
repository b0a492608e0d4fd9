"""Public sets: from folders as torchvision leaves them; downloads whole or not at all; errors say what to do."""

from __future__ import annotations

import csv
import json
import pickle
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torchvision.datasets as tv

from sslctl.data import open_source
from sslctl.data.opening import has_own_val
from sslctl.data.public import PUBLIC, open_public, public_name
from sslctl.data.source import FileSource
from sslctl.errors import DataError, MachineError

MakeImage = Callable[..., np.ndarray]  # the fixture in conftest.py

RNG = np.random.default_rng(0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSLCTL_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pixels(n: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (n, *shape), dtype=np.uint8)


def idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.tobytes())


def test_mnist_and_its_kin(cache: Path) -> None:
    for name, dataset in (("mnist", "MNIST"), ("fashionmnist", "FashionMNIST"), ("kmnist", "KMNIST")):
        raw = cache / name / dataset / "raw"
        images, labels = pixels(7, 28, 28), np.arange(7, dtype=np.uint8)
        for part, k in (("train", 7), ("t10k", 3)):
            idx(raw / f"{part}-images-idx3-ubyte", images[:k])
            idx(raw / f"{part}-labels-idx1-ubyte", labels[:k])
        source = open_source(name)
        assert np.array_equal(source.array, np.stack([images] * 3, -1)) and len(source.classes) == 10
        assert len(open_source(name, split="val")) == 3
        names = getattr(tv, dataset).classes
        assert source.labels is not None and [source.classes[label] for label in source.labels] == names[:7]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(cache: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = {"cifar10": tv.CIFAR10, "cifar100": tv.CIFAR100}[name]
    key = "labels" if name == "cifar10" else "fine_labels"
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(dataset, part, [[file, None] for file, _ in getattr(dataset, part)])
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": None})
    base = cache / name / dataset.base_folder
    base.mkdir(parents=True)
    images = {}
    for file, _ in dataset.train_list + dataset.test_list:
        images[file] = pixels(4, 32, 32, 3)
        data = {"data": images[file].transpose(0, 3, 1, 2).reshape(4, -1), key: [1, 0, 2, 1]}
        (base / file).write_bytes(pickle.dumps(data))
    (base / dataset.meta["filename"]).write_bytes(pickle.dumps({dataset.meta["key"]: ["cat", "bee", "ant"]}))
    source = open_source(name)
    assert np.array_equal(source.array[:4], images[dataset.train_list[0][0]])  # type: ignore[index]
    assert source.classes == ["ant", "bee", "cat"] and source.labels is not None
    assert source.labels[:4].tolist() == [1, 2, 0, 1]
    assert np.array_equal(open_source(name, split="val").array, images[dataset.test_list[0][0]])


def test_stl10_with_and_without_labels(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(tv.STL10, part, [[file, None] for file, _ in getattr(tv.STL10, part)])
    base = cache / "stl10" / "stl10_binary"
    base.mkdir(parents=True)
    upright = pixels(9, 96, 96, 3)
    stored = upright.transpose(0, 3, 2, 1)  # columns first
    for file, data in (("train_X", stored[:4]), ("unlabeled_X", stored[4:]), ("test_X", stored[:2])):
        (base / f"{file}.bin").write_bytes(np.ascontiguousarray(data).tobytes())
    (base / "train_y.bin").write_bytes(bytes([1, 2, 2, 1]))
    (base / "test_y.bin").write_bytes(bytes([2, 1]))
    (base / "class_names.txt").write_text("airplane\nbird\n")
    labelled, every = open_source("stl10"), open_source("stl10", labelled=False)
    assert np.array_equal(labelled.array, upright[:4]) and labelled.labels is not None
    assert labelled.labels.tolist() == [0, 1, 1, 0] and labelled.classes == ["airplane", "bird"]
    assert np.array_equal(every.array, upright) and every.labels is None and every.classes == []
    assert np.array_equal(open_source("stl10", split="val", labelled=False).labels, [1, 0])


def test_svhn(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tv.SVHN, "split_list", {k: [url, file, None] for k, (url, file, _) in tv.SVHN.split_list.items()}
    )
    (cache / "svhn").mkdir(parents=True)
    images = pixels(5, 32, 32, 3)
    content = {"X": images.transpose(1, 2, 3, 0), "y": np.array([[10], [1], [2], [9], [10]])}
    scipy.io.savemat(cache / "svhn" / "train_32x32.mat", content)
    source = open_source("svhn")
    assert np.array_equal(source.array, images) and source.labels is not None
    assert [source.classes[label] for label in source.labels] == ["0", "1", "2", "9", "0"]


def make_files(
    name: str, root: Path, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[list[str], list[str]]]:
    """Lays ``name`` out below ``root``; per part the expected file names and classes."""
    if name in ("imagenette", "imagenette160"):
        base = root / f"imagenette2-{'160' if name.endswith('160') else '320'}"
        for file in ("train/n01440764/a.JPEG", "train/n03000684/b.JPEG", "val/n03000684/c.JPEG"):
            image(base / file)
        return {"train": (["a.JPEG", "b.JPEG"], ["tench", "chain saw"]), "val": (["c.JPEG"], ["chain saw"])}
    if name == "flowers102":
        base = root / "flowers-102"
        for i in range(1, 5):
            image(base / "jpg" / f"image_{i:05}.jpg")
        scipy.io.savemat(base / "imagelabels.mat", {"labels": np.array([77, 1, 2, 77])})
        scipy.io.savemat(
            base / "setid.mat", {"trnid": np.array([1, 2]), "valid": np.array([3, 3]), "tstid": np.array([4, 4])}
        )
        monkeypatch.setattr(
            tv.Flowers102, "_file_dict", {k: (f, None) for k, (f, _) in tv.Flowers102._file_dict.items()}
        )
        names = tv.Flowers102.classes
        train = [f"image_{i:05}.jpg" for i in (1, 2, 3, 3)]
        return {
            "train": (train, [names[76], names[0], names[1], names[1]]),
            "val": (["image_00004.jpg"] * 2, [names[76]] * 2),
        }
    if name == "food101":
        for file in ("images/pie/1.jpg", "images/soup/2.jpg", "images/soup/3.jpg"):
            image(root / "food-101" / file)
        (root / "food-101/meta").mkdir()
        for part, content in (
            ("train", {"soup": ["soup/2"], "pie": ["pie/1"]}),
            ("test", {"soup": ["soup/3"], "pie": []}),
        ):
            (root / "food-101/meta" / f"{part}.json").write_text(json.dumps(content))
        return {"train": (["2.jpg", "1.jpg"], ["soup", "pie"]), "val": (["3.jpg"], ["soup"])}
    if name == "pets":
        base = root / "oxford-iiit-pet"
        for file in ("Abyssinian_1", "pug_2", "pug_3"):
            image(base / "images" / f"{file}.jpg")
        (base / "annotations").mkdir()
        (base / "annotations/trainval.txt").write_text("Abyssinian_1 1 1 1\npug_2 2 2 1\n")
        (base / "annotations/test.txt").write_text("Abyssinian_1 1 1 1\npug_3 2 2 1\n")
        return {
            "train": (["Abyssinian_1.jpg", "pug_2.jpg"], ["Abyssinian", "Pug"]),
            "val": (["Abyssinian_1.jpg", "pug_3.jpg"], ["Abyssinian", "Pug"]),
        }
    if name == "dtd":
        base = root / "dtd" / "dtd"
        for i, kind in enumerate(("banded", "dotted", "banded")):
            image(base / "images" / kind / f"{i}.jpg")
            (base / "labels").mkdir(exist_ok=True)
        for part, lines in (
            ("train", "banded/0.jpg\ndotted/1.jpg\n"),
            ("val", "banded/2.jpg\ndotted/1.jpg\n"),
            ("test", "dotted/1.jpg\nbanded/0.jpg\n"),
        ):
            (base / "labels" / f"{part}1.txt").write_text(lines)
        return {
            "train": (["0.jpg", "1.jpg", "2.jpg", "1.jpg"], ["banded", "dotted", "banded", "dotted"]),
            "val": (["1.jpg", "0.jpg"], ["dotted", "banded"]),
        }
    if name == "aircraft":
        base = root / "fgvc-aircraft-2013b/data"
        for i in range(3):
            image(base / "images" / f"{i}.jpg")
        (base / "variants.txt").write_text("A 320\n747\n")
        (base / "images_variant_trainval.txt").write_text("0 747\n1 A 320\n")
        (base / "images_variant_test.txt").write_text("2 A 320\n")
        return {"train": (["0.jpg", "1.jpg"], ["747", "A 320"]), "val": (["2.jpg"], ["A 320"])}
    if name == "gtsrb":
        base = root / "gtsrb"
        for file in ("Training/00000/a.ppm", "Training/00001/b.ppm", "Final_Test/Images/c.ppm"):
            image(base / "GTSRB" / file)
        with (base / "GT-final_test.csv").open("w") as file:
            csv.writer(file, delimiter=";").writerows([["Filename", "ClassId"], ["c.ppm", "1"]])
        return {"train": (["a.ppm", "b.ppm"], ["0", "1"]), "val": (["c.ppm"], ["1"])}
    assert name == "eurosat"
    for file in ("Forest/1.jpg", "River/2.jpg"):
        image(root / "eurosat/2750" / file)
    return {"train": (["1.jpg", "2.jpg"], ["Forest", "River"]), "val": (["1.jpg", "2.jpg"], ["Forest", "River"])}


FILES = ["imagenette", "imagenette160", "flowers102", "food101", "pets", "dtd", "aircraft", "gtsrb", "eurosat"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("own_layout", [True, False])
def test_sets_of_files(
    cache: Path, image: MakeImage, monkeypatch: pytest.MonkeyPatch, name: str, own_layout: bool
) -> None:
    """In the cache under their name, or as torchvision itself lays a folder out."""
    expected = make_files(name, cache / name if own_layout else cache, image, monkeypatch)
    for split in ("train", "val"):
        source = open_public(name, split)  # type: ignore[arg-type]
        assert isinstance(source, FileSource) and source.labels is not None
        files, classes = expected[split]
        assert [source.names[i].split("/")[-1] for i in range(len(source))] == files
        assert [source.classes[label] for label in source.labels] == classes
        assert source.read(0).shape == (6, 8, 3) and len(set(source.classes)) == len(source.classes)


def test_every_set_is_tested_here() -> None:
    assert set(PUBLIC) == {*FILES, "mnist", "fashionmnist", "kmnist", "cifar10", "cifar100", "stl10", "svhn"}
    assert all(hasattr(tv, public.dataset) for public in PUBLIC.values())
    assert len(set(tv.Flowers102.classes)) == 102  # labels are matched by name
    assert [name for name in PUBLIC if not has_own_val(name)] == ["eurosat"]


def test_spelling_of_names() -> None:
    assert public_name("CIFAR-10") == public_name("cifar_10") == "cifar10" and public_name("cifar1") is None


def test_a_set_that_is_not_there(cache: Path) -> None:
    with pytest.raises(DataError, match=f"cifar10 is not in {cache}") as caught:
        open_source("CIFAR-10")
    assert "--download" in caught.value.hint and "SSLCTL_DATA" in caught.value.hint
    (cache / "cifar10" / "cifar-10-batches-py").mkdir(parents=True)
    for download in (False, True):
        with pytest.raises(DataError, match="incomplete or damaged") as caught:
            open_source("cifar10", download=download)
        assert str(cache / "cifar10") in caught.value.hint


def test_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(MachineError, match="cifar10 cannot be fetched: Name or service not known") as caught:
        open_source("cifar10", download=True)
    assert caught.value.exit_code == 5 and "demo" in caught.value.hint
    assert list(cache.iterdir()) == []  # nothing half is left behind


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSLCTL_DATA", str(tmp_path / "file" / "cache"))
    with pytest.raises(MachineError, match="cannot be written") as caught:
        open_source("cifar10", download=True)
    assert "SSLCTL_DATA" in caught.value.hint


def test_a_download_appears_when_it_is_whole(
    cache: Path, image: MakeImage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(self: Any) -> None:
        sys.stdout.write("Downloading")
        make_files("imagenette", Path(self.root), image, monkeypatch)
        assert not (cache / "imagenette").exists()

    monkeypatch.setattr(tv.Imagenette, "_download", fetch)
    assert len(open_source("imagenette", download=True)) == 2
    assert [path.name for path in cache.iterdir()] == ["imagenette"]
    assert capsys.readouterr().out == ""
    assert len(open_source("imagenette", split="val")) == 1
