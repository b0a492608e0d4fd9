"""Attention maps: DINO's visualisation to the last bit, any size and aspect, any kind of network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timm.models import VisionTransformer
from torch import Tensor

from sslctl.backbones import Backbone, attention, build_backbone
from sslctl.data.source import ArraySource
from sslctl.errors import SpecError
from sslctl.spec.schema import BackboneSpec
from sslctl.visualize.maps.attention import MapOptions, attention_maps, choose_kind, fit_area, mass_mask, upsample
from sslctl.visualize.maps.pictures import PICTURES, write_maps

GOLDEN = Path(__file__).parents[2] / "golden"
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
RNG = np.random.default_rng(0)


def looking(size: int, kind: str = "attention", block: int = -1, share: float = 0.6) -> MapOptions:
    return MapOptions(kind, size, MEAN, STD, block, share)


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
    look = MapOptions("attention", round((height * width) ** 0.5), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    maps = attention_maps(dino_vit(weights), image, look)
    assert np.array_equal(maps.image, image)
    name = f"{height}x{width}"
    torch.testing.assert_close(maps.raw, expected[f"{name}/attention"].float(), rtol=2e-5, atol=0)
    torch.testing.assert_close(maps.heads, upsample(maps.raw, 8), rtol=0, atol=0)
    assert (maps.masks == upsample(expected[f"{name}/mask_0.6"].bool(), 8)).float().mean() > 0.999
    assert torch.equal(maps.union, maps.masks[0] | maps.masks[1])


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
    with pytest.raises(SpecError, match="not computed for a block"):
        attention_maps(net, image, looking(64, "grad-cam", block=2))
    with pytest.raises(SpecError, match="--kind 'atention'"):
        choose_kind(net, "atention")
    assert set(PICTURES) > {"heads", "masks"}
