"""Backbones by name: stems, fresh weights, stochastic depth, hollow ones, and clear refusals."""

from __future__ import annotations

import pytest
import torch

from sslctl.backbones import build_backbone, hollow_backbone, without_drop_path
from sslctl.errors import SpecError
from sslctl.spec.schema import BackboneSpec

from .nets import TINY_RESNET, resnet, vit


@pytest.mark.parametrize(
    ("size", "stem", "found"),
    [(32, "auto", "small"), (64, "auto", "imagenet"), (64, "small", "small"), (32, "imagenet", "imagenet")],
)
def test_stem_of_a_resnet_follows_the_size_of_its_images(size: int, stem: str, found: str) -> None:
    net = resnet(size, stem)
    assert (net.is_vit, net.stem, net.dim) == (False, found, 8)
    x = torch.randn(2, 3, size, size)
    assert net(x).pooled.shape == (2, 8)
    stride = size // net.net.forward_features(x).shape[-1]
    assert stride == (8 if found == "small" else 32)
    assert net.net.conv1.weight.std().item() == pytest.approx(
        (2 / (64 * net.net.conv1.kernel_size[0] ** 2)) ** 0.5, rel=0.1
    )


def test_building_moves_no_statistics_and_depends_on_the_generator_alone() -> None:
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(resnet(32))
    a, b = (net.state_dict() for net in nets)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not a["net.bn1.running_mean"].any() and a["net.bn1.num_batches_tracked"] == 0


def test_last_norms_begin_at_zero_unless_asked_otherwise() -> None:
    assert not resnet(32).net.layer1[0].bn2.weight.any()
    spec = BackboneSpec(arch="resnet18", args=TINY_RESNET | {"zero_init_last": False})
    assert build_backbone(spec, 32).net.layer1[0].bn2.weight.all()


def test_drop_path_is_the_students_alone() -> None:
    for net in (vit(drop_path=0.5), resnet(32, drop_path=0.5)):
        if not net.is_vit:
            torch.nn.init.ones_(net.net.layer4[0].bn2.weight)
        x = torch.randn(16, 3, 32, 32)
        assert not torch.equal(net(x).pooled, net(x).pooled)
        assert without_drop_path(net) is net
        torch.testing.assert_close(net(x).pooled, net(x).pooled, rtol=0, atol=0)


def test_any_convolutional_net_of_timm_serves() -> None:
    for arch, size in (("regnetx_002", 64), ("mobilenetv3_small_050", 32)):
        net = build_backbone(BackboneSpec(arch=arch), size).eval()
        assert net(torch.randn(1, 3, size, size)).pooled.shape == (1, net.dim)
        assert net.stem == "imagenet"


@pytest.mark.parametrize(
    ("spec", "size", "message"),
    [
        ({"arch": "resnet-50"}, 64, "did you mean 'resnet50'"),
        ({"arch": "vit_tiny_patch16_224"}, 32, "only 2x2 patches"),
        ({"arch": "vit_tiny_patch16_224", "stem": "small"}, 64, "no stem"),
        ({"arch": "regnetx_002", "stem": "small"}, 32, "not a ResNet"),
        ({"arch": "resnet18", "position": "dino"}, 64, "no positions"),
        ({"arch": "vit_small_patch14_reg4_dinov2", "position": "dino", "args": {"depth": 1}}, 56, "other tokens"),
        ({"arch": "swin_tiny_patch4_window7_224"}, 224, "one size only"),
        ({"arch": "deit_tiny_distilled_patch16_224"}, 64, "not a plain ViT"),
        ({"arch": "resnet18", "args": {"pretrained": True}}, 64, "backbone.args.pretrained"),
        ({"arch": "resnet18", "args": {"chanels": [8]}}, 64, "chanels"),
        ({"arch": "inception_v3"}, 32, "fails on 32 px"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(spec: dict[str, object], size: int, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build_backbone(BackboneSpec(**spec), size)  # type: ignore[arg-type]


def test_nets_with_batch_norm_are_not_checkpointed():
    with pytest.raises(SpecError, match="not a ViT"):
        build_backbone(BackboneSpec(arch="resnet18", grad_checkpointing=True), 64)


@pytest.mark.parametrize("arch", ["resnet10t", "resnetblur50", "vit_tiny_patch16_224", "convnext_atto", "regnetx_002"])
def test_a_hollow_backbone_once_filled_is_the_whole_one(arch):
    spec = BackboneSpec(arch=arch)
    whole = build_backbone(spec, 64).eval()
    filled = hollow_backbone(spec, 64).eval()
    filled.load_state_dict(whole.state_dict(), assign=True)
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(whole(x).pooled, filled(x).pooled)
