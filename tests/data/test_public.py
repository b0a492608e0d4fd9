"""Public sets: from folders as torchvision leaves them; downloads whole or not at all; errors say what to do."""

from __future__ import annotations

import pickle
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torchvision.datasets as tv

from sslctl.data import open_source
from sslctl.data.opening import has_own_val
from sslctl.data.public import PUBLIC, public_name
from sslctl.errors import DataError, MachineError

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


def test_every_set_is_tested() -> None:
    arrays = {"mnist", "fashionmnist", "kmnist", "cifar10", "cifar100", "stl10", "svhn"}
    files = {"imagenette", "imagenette160", "flowers102", "food101", "pets", "dtd", "aircraft", "gtsrb", "eurosat"}
    assert set(PUBLIC) == arrays | files  # files: test_public_files.py
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
