"""Attention maps: DINO's visualisation to the last bit, any size and aspect, PNG files, broken images listed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.models import VisionTransformer
from torch import Tensor

from sslctl.backbones import Backbone, attention, build_backbone
from sslctl.data.source import ArraySource, FileSource
from sslctl.errors import SpecError
from sslctl.spec import BackboneSpec
from sslctl.visualize.attention import attention_maps, fit_area, mass_mask, upsample
from sslctl.visualize.attention_png import output_names, write_maps
from sslctl.visualize.paint import blend, colour, dim, sheet

GOLDEN = Path(__file__).parent.parent / "golden"
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN / "dino_vit.safetensors")


@pytest.fixture(scope="module")
def vit() -> Backbone:
    torch.manual_seed(0)
    args = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    net = build_backbone(BackboneSpec(arch="vit_tiny_patch16_224", args=args), 32)
    with torch.no_grad():
        for block in net.net.blocks:
            block.attn.qkv.weight *= 20  # fresh weights look everywhere alike
    return net.eval()


def test_maps_and_masks_are_those_of_dino(golden: dict[str, Tensor]) -> None:
    net = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=2, mlp_ratio=2, num_classes=0, dynamic_img_size=True
    ).double()
    net.load_state_dict({k.removeprefix("state/"): v for k, v in golden.items() if k.startswith("state/")})
    maps = attention(Backbone(net, 32, position="dino").eval(), golden["attn_map/x"])[0]
    torch.testing.assert_close(upsample(maps, 8), golden["attn_map/heatmaps"], rtol=1e-9, atol=0)
    for share in (0.6, 0.9):
        assert torch.equal(upsample(mass_mask(maps, share), 8).float(), golden[f"attn_map/mask_{share}"])


def test_a_mask_holds_its_share_and_not_more_than_it_needs() -> None:
    maps = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    for share in (0.1, 0.6, 0.95):
        keep = mass_mask(maps, share)
        for m, k in zip(maps, keep, strict=True):
            total, held = m.sum(), m[k]
            assert held.sum() >= share * total - 1e-5
            assert held.sum() - held.min() < share * total
            assert held.min() >= m[~k].max()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (100, 50), (37, 211), (500, 375), (1, 300), (7, 5)])
def test_an_image_keeps_its_aspect_and_its_area_that_of_the_network(height: int, width: int) -> None:
    shown = fit_area(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8), 64)
    h, w = shown.shape[1:]
    assert h * w == pytest.approx(64 * 64, rel=0.3)
    assert abs(h - w * height / width) <= 1 or abs(w - h * width / height) <= width / height


def test_the_map_lies_where_the_network_looks(vit: Backbone) -> None:
    image = RNG.integers(0, 256, (30, 52, 3), dtype=np.uint8)
    maps = attention_maps(vit, image, MEAN, STD, size=40)
    h, w = maps.image.shape[:2]
    assert maps.grid == (-(-h // 8), -(-w // 8))
    assert maps.heads.shape == maps.masks.shape == (2, h, w)
    shown = fit_area(image, 40)
    x = torch.nn.functional.pad((shown[None] / 255 - 0.5) / 0.25, (0, -w % 8, 0, -h % 8), mode="replicate")
    grid = attention(vit, x)[0]
    for r in range(maps.grid[0]):
        for c in range(maps.grid[1]):
            patch = maps.heads[:, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8]
            torch.testing.assert_close(patch, grid[:, r, c, None, None].expand_as(patch), rtol=1e-5, atol=1e-7)
    earlier = attention_maps(vit, image, MEAN, STD, size=40, block=0)
    assert not torch.allclose(earlier.heads, maps.heads)


def test_a_folder_becomes_pictures_and_broken_images_a_list(vit: Backbone, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    names = ["a.jpg", "a.png", "deep/b c.webp", "bad.png", "wide.png"]
    sizes = {"a.jpg": (40, 30), "a.png": (64, 64), "deep/b c.webp": (20, 90), "wide.png": (300, 10)}
    for name, size in sizes.items():
        Image.fromarray(RNG.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    source = FileSource("in", str(tmp_path / "in"), names)
    out = tmp_path / "out"
    written, failed = write_maps(vit, source, out, MEAN, STD, size=32)
    assert [Path(f["image"]).name for f in failed] == ["bad.png"] and failed[0]["reason"]
    kinds = ["head0", "head1", "mean", "overlay", "sheet"]
    stems = ["a.jpg", "a.png", "deep/b c", "wide"]
    files = sorted(str(p.relative_to(out)) for p in out.rglob("*.png"))
    assert files == sorted(f"{stem}_{kind}.png" for stem in stems for kind in kinds)
    assert [len(entry["files"]) for entry in written] == [5] * 4
    image = fit_area(source.read(0), 32)
    with Image.open(out / "a.jpg_mean.png") as mean:
        assert mean.size == (image.shape[2], image.shape[1])
        expected = attention_maps(vit, source.read(0), MEAN, STD, size=32).heads.mean(0)
        assert np.array_equal(np.asarray(mean), colour(expected.numpy()))


def test_output_names_stay_inside_and_differ(tmp_path: Path) -> None:
    names = ["x.png", "x.jpg", "../up.png", "/etc/up.png", "a:b.png", "a?b.png", "plain.tar.png"]
    found = output_names(FileSource("f", str(tmp_path), names))
    assert found == ["x.png", "x.jpg", "up.png", "up.png_", "a_b.png", "a_b.png_", "plain.tar"]
    array = ArraySource("demo set", np.zeros((2, 8, 8, 3), np.uint8))
    assert output_names(array) == ["demo set_0", "demo set_1"]


def test_a_convolutional_net_is_refused(tmp_path: Path) -> None:
    net = build_backbone(BackboneSpec(arch="resnet18", args={"channels": [4, 4, 8, 8]}), 32)
    with pytest.raises(SpecError, match="need a ViT"):
        attention_maps(net, np.zeros((32, 32, 3), np.uint8), MEAN, STD, size=32)


def test_colours_overlays_and_sheets() -> None:
    ramp = np.linspace(0.2, 0.4, 12).reshape(3, 4)
    painted = colour(ramp, "viridis")
    assert painted[0, 0].tolist() == [68, 1, 84] and painted[-1, -1].tolist() == [253, 231, 37]  # both ends of viridis
    assert np.array_equal(colour(ramp * 100, "viridis"), painted)
    assert len(np.unique(colour(np.full((3, 4), 0.5)).reshape(-1, 3), axis=0)) == 1
    image = np.full((3, 4, 3), 200, np.uint8)
    assert blend(image, image * 0, 0.25)[0, 0].tolist() == [150] * 3
    keep = np.eye(3, 4, dtype=bool)
    assert dim(image, keep)[0, 0, 0] == 200 and dim(image, keep)[0, 1, 0] == 50
    page = sheet([("a", image), ("b", painted), ("c", image)], 2)
    assert page.shape == (2 * (3 + 4 + 14) + 4, 2 * (4 + 4) + 4, 3)
    assert np.array_equal(page[18:21, 12:16], painted)
