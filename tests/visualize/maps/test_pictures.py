"""Maps as files: their names, contents and entries; broken images listed, one image in memory at a time."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslctl.backbones import Backbone, build_backbone
from sslctl.data.decode import Pixels
from sslctl.data.source import ArraySource, FileSource
from sslctl.errors import SpecError
from sslctl.spec.schema import BackboneSpec
from sslctl.visualize.maps.attention import MapOptions, attention_maps
from sslctl.visualize.maps.pictures import output_names, parse_pictures, write_maps
from sslctl.visualize.paint import colour, mask_picture

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
RNG = np.random.default_rng(0)


def looking(size: int, kind: str = "attention", block: int = -1, share: float = 0.6) -> MapOptions:
    return MapOptions(kind, size, MEAN, STD, block, share)


@pytest.fixture(scope="module")
def vit() -> Backbone:
    torch.manual_seed(0)
    args = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    net = build_backbone(BackboneSpec(arch="vit_tiny_patch16_224", args=args), 32)
    with torch.no_grad():
        for block in net.net.blocks:
            block.attn.qkv.weight *= 20  # fresh weights look everywhere alike
    return net.eval()


def test_a_folder_becomes_pictures_and_broken_images_a_list(vit: Backbone, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    names = ["a.jpg", "a.png", "deep/b c.webp", "bad.png", "wide.png"]
    sizes = {"a.jpg": (40, 30), "a.png": (64, 64), "deep/b c.webp": (20, 90), "wide.png": (300, 10)}
    for name, size in sizes.items():
        Image.fromarray(RNG.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    source = FileSource("in", str(tmp_path / "in"), names)
    out = tmp_path / "out"
    heard: list[tuple[int, int]] = []
    written, failed = write_maps(vit, source, out, looking(32), raw=True, progress=lambda i, n: heard.append((i, n)))
    assert [Path(f["image"]).name for f in failed] == ["bad.png"] and failed[0]["reason"]
    assert heard == [(i, 5) for i in range(1, 6)]
    kinds = ["head0", "head1", "mask0", "mask1", "mean", "overlay", "sheet", "union"]
    stems = ["a.jpg", "a.png", "deep/b c", "wide"]
    files = sorted(str(p.relative_to(out)) for p in out.rglob("*.png"))
    assert files == sorted(f"{stem}_{kind}.png" for stem in stems for kind in kinds)
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.npy")) == [f"{stem}.npy" for stem in stems]
    assert [Path(f).exists() for entry in written for f in entry["files"]] == [True] * 36
    expected = attention_maps(vit, source.read(0), looking(32))
    height, width = expected.image.shape[:2]
    assert (written[0]["size"], written[0]["grid"]) == ([height, width], list(expected.grid))
    assert np.array_equal(np.load(out / "a.jpg.npy"), expected.raw.numpy())
    for kind, painted in (("mean", colour(expected.mean.numpy())), ("mask1", mask_picture(expected.masks[1].numpy()))):
        with Image.open(out / f"a.jpg_{kind}.png") as found:
            assert np.array_equal(np.asarray(found), painted)


def test_only_the_pictures_that_are_asked_for(vit: Backbone, tmp_path: Path) -> None:
    source = ArraySource("two", RNG.integers(0, 256, (2, 24, 24, 3), dtype=np.uint8))
    write_maps(vit, source, tmp_path, looking(24, "rollout"), pictures=parse_pictures("sheet, mean"))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"two_{i}_{kind}.png" for i in "01" for kind in ("mean", "sheet")
    ]
    with pytest.raises(SpecError, match="did you mean 'overlay'"):
        parse_pictures("sheet,overly")


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
    source = Counting("many", RNG.integers(0, 256, (12, 24, 24, 3), dtype=np.uint8))
    write_maps(vit, source, tmp_path, looking(24), pictures=["overlay"])
    assert source.most <= 2 and source.alive <= 1  # the one before is let go when the next is there


def test_output_names_stay_inside_and_differ(tmp_path: Path) -> None:
    names = ["x.png", "x.jpg", "../up.png", "/etc/up.png", "a:b.png", "a?b.png", "plain.tar.png"]
    found = output_names(FileSource("f", str(tmp_path), names))
    assert found == ["x.png", "x.jpg", "up.png", "up.png_", "a_b.png", "a_b.png_", "plain.tar"]
    array = ArraySource("demo set", np.zeros((2, 8, 8, 3), np.uint8))
    assert output_names(array) == ["demo set_0", "demo set_1"]
