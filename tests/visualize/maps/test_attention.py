"""Attention maps: DINO's visualisation to the last bit, any size and aspect, PNG files, broken images listed."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.models import VisionTransformer
from torch import Tensor

from sslctl.backbones import Backbone, attention, build_backbone
from sslctl.data.decode import Pixels
from sslctl.data.source import ArraySource, FileSource
from sslctl.errors import SpecError
from sslctl.spec.schema import BackboneSpec
from sslctl.visualize.maps.attention import Look, attention_maps, choose_kind, fit_area, mass_mask, upsample
from sslctl.visualize.maps.pictures import PICTURES, output_names, parse_pictures, write_maps
from sslctl.visualize.paint import black_white, blend, colour, dim, fit, frame, sheet

GOLDEN = Path(__file__).parents[2] / "golden"
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
RNG = np.random.default_rng(0)


def looking(size: int, kind: str = "attention", block: int = -1, share: float = 0.6) -> Look:
    return Look(kind, size, MEAN, STD, block, share)


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


def dino_vit(golden: dict[str, Tensor]) -> Backbone:
    net = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=2, mlp_ratio=2, num_classes=0, dynamic_img_size=True
    ).double()
    net.load_state_dict({k.removeprefix("state/"): v for k, v in golden.items() if k.startswith("state/")})
    return Backbone(net, 32, position="dino").eval()


def test_maps_and_masks_are_those_of_dino(golden: dict[str, Tensor]) -> None:
    maps = attention(dino_vit(golden), golden["attn_map/x"])[0]
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
    maps = attention_maps(vit, image, looking(40))
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
    earlier = attention_maps(vit, image, looking(40, block=0))
    assert not torch.allclose(earlier.heads, maps.heads)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (288, 128)])
def test_an_image_of_the_right_area_gives_the_authors_maps_pixel_for_pixel(height: int, width: int) -> None:
    """facebookresearch/dino on the same pixels, up to what float32 pixels lose; masks exactly."""
    weights, expected = load_file(GOLDEN / "dino_vit.safetensors"), load_file(GOLDEN / "dino_maps.safetensors")
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    image = ((3 * y + 5 * x * (c + 1) + y * x // 7) % 256).astype(np.uint8)
    look = Look("attention", round((height * width) ** 0.5), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    maps = attention_maps(dino_vit(weights), image, look)
    assert np.array_equal(maps.image, image)
    name = f"{height}x{width}"
    torch.testing.assert_close(maps.raw, expected[f"{name}/attention"].float(), rtol=2e-5, atol=0)
    torch.testing.assert_close(maps.heads, upsample(maps.raw, 8), rtol=0, atol=0)
    assert (maps.masks == upsample(expected[f"{name}/mask_0.6"].bool(), 8)).float().mean() > 0.999
    assert torch.equal(maps.union, maps.masks[0] | maps.masks[1])


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
    for kind, painted in (("mean", colour(expected.mean.numpy())), ("mask1", black_white(expected.masks[1].numpy()))):
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


def test_a_convolutional_net_gives_a_saliency_of_the_same_shape(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build_backbone(BackboneSpec(arch="resnet18", args={"channels": [4, 4, 8, 8]}), 32).eval()
    with pytest.raises(SpecError, match="need a ViT"):
        attention_maps(net, np.zeros((32, 32, 3), np.uint8), looking(32))
    image = RNG.integers(0, 256, (50, 90, 3), dtype=np.uint8)
    maps = attention_maps(net, image, looking(64, choose_kind(net, "auto")))
    height, width = maps.image.shape[:2]
    assert maps.heads.shape == maps.masks.shape == (1, height, width)
    assert maps.stride == 8 and maps.grid == (-(-height // 8), -(-width // 8))
    files = write_maps(net, ArraySource("x", image[None]), tmp_path, looking(64, "activation"))[0][0]["files"]
    assert [Path(f).name for f in files] == [f"x_0_{kind}.png" for kind in ("mean", "union", "overlay", "sheet")]
    with pytest.raises(SpecError, match="not that of a block"):
        attention_maps(net, image, looking(64, "grad-cam", block=2))
    with pytest.raises(SpecError, match="--kind 'atention'"):
        choose_kind(net, "atention")
    assert set(PICTURES) > {"heads", "masks"}


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
    inside = fit(image, 8)
    assert inside.shape == (8, 8, 3) and (inside[:1] == 255).all() and (inside[1:7] == 200).all()
    framed = frame(np.full((6, 6, 3), 9, np.uint8), (1, 2, 3))
    assert framed[1, 3].tolist() == [1, 2, 3] and (framed[2:4, 2:4] == 9).all()
