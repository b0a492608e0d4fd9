"""Maps as files: which pictures, under which names, and none outside the folder."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslctl.backbones import Backbone, build_backbone
from sslctl.data.decode import Pixels
from sslctl.data.folder import open_folder
from sslctl.data.source import ArraySource, FileSource
from sslctl.errors import SpecError
from sslctl.spec.schema import BackboneSpec
from sslctl.visualize.maps.attention import MapOptions, attention_maps
from sslctl.visualize.maps.pictures import PICTURES, output_names, paint_maps, parse_pictures, write_maps

from ...training import picture_folder


def source(*names: str) -> FileSource:
    return FileSource("photos", "/photos", names)


def test_names_are_all_different_and_stay_in_the_folder() -> None:
    names = ["a/1.jpg", "a/1.png", "a/2.jpg", "../out.jpg", "/etc/passwd.png", "b<i>\n.jpg", "a/2_.jpg"]
    found = output_names(source(*names))
    assert found[:4] == ["a/1.jpg", "a/1.png", "a/2", "out"] and found[4] == "passwd"
    assert len(set(found)) == len(found) and not any(set(name) & set("<>\n\\") for name in found)
    assert not any(Path(name).is_absolute() or ".." in Path(name).parts for name in found)
    assert output_names(source("x.jpg", "sub/../x.jpg")) == ["x.jpg", "x.jpg_"]


def test_words_for_pictures() -> None:
    assert parse_pictures("sheet, overlay") == ["sheet", "overlay"] and parse_pictures(",".join(PICTURES)) == list(
        PICTURES
    )
    with pytest.raises(SpecError, match="--pictures 'shet'.*did you mean 'sheet'"):
        parse_pictures("mean,shet")


@pytest.fixture(scope="module")
def vit() -> Backbone:
    torch.manual_seed(0)
    args = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return build_backbone(BackboneSpec(arch="vit_tiny_patch16_224", args=args), 32).eval()


LOOK = MapOptions("attention", 32, (0.5,) * 3, (0.5,) * 3)


def test_every_picture_asked_for_is_written_and_unreadable_images_are_named(vit: Backbone, tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "pictures", 4)
    (folder / "class1" / "003.jpg").write_bytes(b"")
    source = open_folder(str(folder), "train")
    seen: list[tuple[int, int]] = []
    written, failed = write_maps(
        vit, source, tmp_path / "out", LOOK, pictures=["heads", "sheet"], raw=True,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(i, 4) for i in range(1, 5)] and len(written) == 3
    assert [Path(one["image"]).name for one in failed] == ["003.jpg"] and "0 bytes" in failed[0]["reason"]
    first = written[0]
    assert [Path(path).name for path in first["files"]] == [
        "000_head0.png",
        "000_head1.png",
        "000_sheet.png",
        "000.npy",
    ]
    raw = np.load(first["files"][-1])
    assert raw.dtype == np.float32 and list(raw.shape) == [2, *first["grid"]] and first["stride"] == 8
    height, width = first["size"]
    with Image.open(first["files"][0]) as head:
        assert head.size == (width, height)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["class0", "class1"]


def test_of_a_single_map_there_are_no_heads_beside_its_mean(vit: Backbone) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    maps = attention_maps(vit, image, LOOK)
    assert [name for name, _ in paint_maps(maps, PICTURES)] == [
        "head0", "head1", "mask0", "mask1", "mean", "union", "overlay", "sheet",
    ]  # fmt: skip
    alone = replace(maps, raw=maps.raw[:1])
    assert [name for name, _ in paint_maps(alone, PICTURES)] == ["mean", "union", "overlay", "sheet"]
    overlay = dict(paint_maps(maps, ["overlay", "mean"]))
    expected = np.rint(0.4 * maps.image + 0.6 * overlay["mean"]).astype(np.uint8)
    assert (overlay["overlay"] == expected).all()


class Counting(ArraySource):
    """Knows how many of the images it gave are still held by somebody."""

    alive = most = 0

    def read(self, i: int) -> Pixels:
        image = super().read(i)
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(image, self.gone)
        return image

    def gone(self) -> None:
        self.alive -= 1


def test_one_image_at_a_time_is_in_memory(vit: Backbone, tmp_path: Path) -> None:
    source = Counting("many", np.random.default_rng(0).integers(0, 256, (12, 24, 24, 3), dtype=np.uint8))
    write_maps(vit, source, tmp_path, LOOK, pictures=["overlay"])
    assert source.most <= 2 and source.alive <= 1  # the one before is let go when the next is there
