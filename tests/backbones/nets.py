"""Tiny networks for tests of backbones."""

from __future__ import annotations

from sslctl.backbones import Backbone, build_backbone
from sslctl.spec.schema import BackboneSpec

TINY_VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8}
TINY_RESNET = {"channels": [4, 4, 8, 8], "layers": [1, 1, 1, 1]}


def vit(
    size: int = 32, *, arch: str = "vit_tiny_patch16_224", args: dict[str, object] | None = None, **more: object
) -> Backbone:
    return build_backbone(BackboneSpec(arch=arch, args=TINY_VIT | (args or {}), **more), size)  # type: ignore[arg-type]


def resnet(size: int, stem: str = "auto", **more: object) -> Backbone:
    return build_backbone(BackboneSpec(arch="resnet18", stem=stem, args=TINY_RESNET, **more), size)  # type: ignore[arg-type]
