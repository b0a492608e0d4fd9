"""What is read of a backbone by name: each kind against the plain timm net."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sslctl.backbones import Backbone, build_backbone
from sslctl.errors import SpecError
from sslctl.evaluate.features.reading import Reading
from sslctl.spec.schema import BackboneSpec

VIT = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}


@pytest.fixture(scope="module")
def vit() -> Backbone:
    torch.manual_seed(0)
    return build_backbone(BackboneSpec(arch="vit_tiny_patch16_224", args=VIT), 32).eval()


@pytest.fixture(scope="module")
def cnn() -> Backbone:
    torch.manual_seed(0)
    args = {"channels": [4, 4, 8, 8], "layers": [1, 1, 1, 1]}
    return build_backbone(BackboneSpec(arch="resnet18", args=args), 64).eval()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_of_a_vit(vit: Backbone, x: Tensor) -> None:
    tokens = vit.net.forward_features(x)  # (2, 17, 24)
    torch.testing.assert_close(Reading(vit, "pooled")(x), vit(x).pooled, rtol=0, atol=0)
    torch.testing.assert_close(Reading(vit, "cls")(x), tokens[:, 0])
    torch.testing.assert_close(Reading(vit, "mean")(x), tokens[:, 1:].mean(1))
    grid = Reading(vit, "patches")(x)
    assert grid.shape == (2, 24, 4, 4)
    torch.testing.assert_close(grid[:, :, 1, 2], tokens[:, 1 + 4 + 2])
    blocks = vit.net.get_intermediate_layers(x, 2, return_prefix_tokens=True, norm=True)
    torch.testing.assert_close(Reading(vit, "last-2")(x), torch.cat([prefix[:, 0] for _, prefix in blocks], 1))
    torch.testing.assert_close(Reading(vit, "last-1")(x), Reading(vit, "cls")(x))


@torch.no_grad()
def test_of_a_cnn(cnn: Backbone, x: Tensor) -> None:
    torch.testing.assert_close(Reading(cnn, "patches")(x), cnn.net.forward_features(x))
    torch.testing.assert_close(Reading(cnn, "mean")(x), cnn(x).pooled)


def test_what_a_net_does_not_have(vit: Backbone, cnn: Backbone) -> None:
    for net, kind, message in [
        (cnn, "cls", "no class token"),
        (cnn, "last-1", "no class token"),
        (vit, "last-4", "has 3 blocks"),
        (vit, "last-0", "no such features"),
        (vit, "grid", "no such features"),
    ]:
        with pytest.raises(SpecError, match=message):
            Reading(net, kind)
