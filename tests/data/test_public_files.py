"""Public sets that are files: what torchvision leaves on disk, read with its file lists and our decoder."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torchvision.datasets as tv

from sslctl.data import open_source
from sslctl.data.public import open_public
from sslctl.data.source import FileSource

from .conftest import MakeImage


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSLCTL_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


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
