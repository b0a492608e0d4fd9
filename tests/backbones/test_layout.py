"""The layout of every family of networks that timm has: pooled as timm's own output, patches where they belong."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models import get_pretrained_cfg
from torch import nn

from sslctl.backbones import Backbone, Features, build_backbone
from sslctl.errors import SpecError
from sslctl.spec.schema import BackboneSpec

# A small model of a family; of one that is not here, the first in timm's list.
SMALL = {
    "byoanet": "halonet_h1", "byobnet": "test_byobnet", "convnext": "test_convnext", "cspnet": "cs3darknet_focus_s",
    "dla": "dla46x_c", "efficientnet": "test_efficientnet", "efficientvit_mit": "efficientvit_b0",
    "eva": "vit_tiny_patch16_dinov3_qkvb", "fastvit": "fastvit_t8", "ghostnet": "ghostnet_050",
    "mambaout": "test_mambaout", "maxxvit": "test_coatnet", "mobilenetv3": "lcnet_035", "mobilevit": "mobilevit_xxs",
    "naflexvit": "naflexvit_base_patch16_gap", "nfnet": "test_nfnet", "pvt_v2": "pvt_v2_b0", "regnet": "regnetx_002",
    "repghost": "repghostnet_050", "resnet": "test_resnet", "resnetv2": "resnetv2_18", "senet": "legacy_seresnet18",
    "shvit": "shvit_s1", "sknet": "skresnet18", "starnet": "starnet_s050", "vgg": "vgg11", "vision_transformer":
    "test_vit", "vovnet": "ese_vovnet19b_slim_dw", "hieradet_sam2": "sam2_hiera_tiny", "metaformer": "poolformer_s12",
}  # fmt: skip
NARROW_VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2}
QUICK = [  # what is built, px, whether the pooled feature is the mean of the map
    ("test_resnet", {}, 64, True),
    ("test_convnext", {}, 64, False),  # a norm after pooling
    ("test_efficientnet", {}, 64, True),
    ("test_byobnet", {}, 64, True),
    ("test_mambaout", {}, 64, False),
    ("mambaout_femto", {"depths": (1, 1, 1, 1)}, 64, False),
    ("lcnet_035", {}, 64, False),  # a convolution after pooling
    ("naflexvit_base_patch16_gap", NARROW_VIT, 64, False),
    ("sam2_hiera_tiny", {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 1, 1)}, 64, False),
    ("vit_tiny_patch16_224", NARROW_VIT | {"patch_size": 8}, 32, False),
    ("vit_small_patch16_dinov3", NARROW_VIT | {"patch_size": 8}, 32, False),
    ("eva02_tiny_patch14_224", NARROW_VIT | {"patch_size": 8}, 32, False),
    ("resnet18", {"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}, 256, True),  # 8 channels on 8 x 8 places
]


@pytest.mark.parametrize(("arch", "args", "size", "mean"), QUICK, ids=[row[0] for row in QUICK])
def test_the_features_are_timms_and_the_map_is_what_is_pooled(
    arch: str, args: dict[str, object], size: int, mean: bool
) -> None:
    if arch not in timm.list_models():
        pytest.skip(f"this timm has no {arch}")
    torch.manual_seed(0)
    backbone = build_backbone(BackboneSpec(arch=arch, args=args, stem="imagenet"), size).eval()
    for height, width in ((size, size), (size, 2 * size)):
        found = compare(backbone, torch.randn(2, 3, height, width))
        assert found.grid == (height // backbone.stride, width // backbone.stride)
        if mean:
            torch.testing.assert_close(found.map.mean((2, 3)), found.pooled)


@pytest.mark.parametrize(
    ("arch", "args", "order"),
    [("test_resnet", {}, "NCHW"), ("test_mambaout", {}, "NHWC"), ("naflexvit_base_patch16_gap", NARROW_VIT, "tokens")],
)
def test_the_map_lies_as_the_image_does(arch: str, args: dict[str, object], order: str) -> None:
    """Only the top left corner of the image is not grey: the map differs there the most."""
    torch.manual_seed(0)
    backbone = build_backbone(BackboneSpec(arch=arch, args=args, stem="imagenet"), 256).eval()
    assert backbone.layout.order == order
    grey = torch.zeros(1, 3, 256, 256)
    x = grey.clone()
    x[:, :, 64:96, 160:192] = torch.randn(3, 32, 32)
    with torch.no_grad():
        change = (backbone(x).map - backbone(grey).map).norm(dim=1)[0]
    stride = backbone.stride
    row, column = divmod(int(change.argmax()), change.shape[1])
    assert 64 - stride <= row * stride < 96 + stride and 160 - stride <= column * stride < 192 + stride


def test_a_net_without_places_has_a_pooled_feature_and_refuses_a_map() -> None:
    class Vectors(nn.Module):
        """A network whose features come as a list of maps of several stages, as those of EfficientViM do."""

        num_features = 8

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 4, 4)

        def forward_features(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [self.conv(x)]

        def forward_head(self, x: list[torch.Tensor]) -> torch.Tensor:
            return x[0].mean((2, 3))

    backbone = Backbone(Vectors(), 32)
    found = backbone(torch.randn(2, 3, 32, 32))
    assert found.pooled.shape == (2, 8) and found.patches.shape == (2, 0, 8) and not backbone.has_map
    with pytest.raises(SpecError, match="no map of features"):
        _ = found.map
    with pytest.raises(SpecError, match="Vectors has no map with a fixed stride"):
        _ = backbone.stride


def test_tokens_that_do_not_fit_the_image_are_an_error() -> None:
    backbone = build_backbone(BackboneSpec(arch="naflexvit_base_patch16_gap", args=NARROW_VIT), 64).eval()
    with pytest.raises(SpecError, match="72 is not a multiple of the patch size 16"):
        backbone(torch.randn(1, 3, 64, 72))


@pytest.mark.slow
@pytest.mark.parametrize("family", timm.list_modules())
def test_every_family_of_timm(family: str) -> None:
    models = timm.list_models(module=family)
    arch = SMALL[family] if SMALL.get(family) in models else models[0]
    cfg = get_pretrained_cfg(arch)
    spec, size = BackboneSpec(arch=arch, stem="imagenet"), cfg.input_size[-1] if cfg else 224
    try:
        with torch.device("meta"):
            backbone = build_backbone(spec, size).eval()
    except SpecError as e:
        assert "images of one size only" in e.message or "not a plain ViT" in e.message
        return
    if sum(p.numel() for p in backbone.parameters()) < 30e6:
        torch.manual_seed(0)
        backbone = build_backbone(spec, size).eval()
    x = torch.randn(1, 3, size, size, device=next(backbone.parameters()).device)
    found = compare(backbone, x)
    assert found.pooled.shape == (1, backbone.dim)
    if backbone.has_map:
        rows, columns = found.grid
        assert rows == columns and found.patches.shape == (1, rows * columns, backbone.net.num_features)
        assert found.map.shape == (1, backbone.net.num_features, rows, columns)


@torch.no_grad()
def compare(backbone: Backbone, x: torch.Tensor) -> Features:
    """The features of ``x``, of which the pooled ones are timm's own and the patches all that timm gives."""
    found: Features = backbone(x)
    theirs, features = backbone.net(x), backbone.net.forward_features(x)
    assert found.pooled.shape == theirs.shape and found.patches.shape[0] == len(x)
    if x.device.type != "meta":
        torch.testing.assert_close(found.pooled, theirs, rtol=0, atol=0)
        if backbone.has_map:
            whole = torch.cat([found.prefix, found.patches], 1)
            assert whole.numel() == features.numel()
            torch.testing.assert_close(whole.sum(), features.sum(), rtol=1e-4, atol=1e-3)
    return found
