"""Tiny encoders to export, with weights and statistics of their own."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from sslctl.backbones import build_backbone
from sslctl.runs.encoder import LoadedEncoder
from sslctl.runs.meta import DataFacts, ImageSpec, Meta
from sslctl.spec.parsing import check_spec

VIT = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
TINY = {
    "resnet": {"arch": "resnet18", "args": {"channels": [4, 4, 8, 8], "layers": [1, 1, 1, 1]}},
    "resnet10": {"arch": "resnet18", "args": {"layers": [1, 1, 1, 1]}},  # torchvision has none narrower
    "resnet18": {"arch": "resnet18"},
    "vit": {"arch": "vit_tiny_patch16_224", "args": VIT},
    "dino": {"arch": "vit_tiny_patch16_224", "args": VIT, "position": "dino", "native_size": 48},
    "dinov2": {"arch": "vit_small_patch14_dinov2", "args": VIT},
    "registers": {"arch": "vit_small_patch14_reg4_dinov2", "args": VIT},
    "giant": {"arch": "vit_giant_patch14_dinov2", "args": VIT | {"embed_dim": 24}},
    "averaged": {"arch": "vit_base_patch16_siglip_224", "args": VIT},
    "rotary": {"arch": "vit_small_patch16_dinov3", "args": VIT},
    "convnext": {"arch": "convnext_atto", "args": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}},
    "same": {"arch": "resnet18", "args": {"layers": [1, 1, 1, 1]}, "padding": "same"},
}


def encoder(kind: str, size: int, data: object = "photos", **more: object) -> LoadedEncoder:
    """An encoder of TINY for images of ``size`` px, as a checkpoint of a run on ``data`` would give it."""
    spec = check_spec({"data": {"path": str(data)}, "backbone": TINY[kind] | more, "method": {"name": "swav"}})
    torch.manual_seed(5)
    backbone = build_backbone(spec.backbone, size)
    with torch.no_grad():
        backbone.train()(3 * torch.randn(16, 3, size, size) + 1)  # statistics of its own
        for p in backbone.parameters():
            p.add_(0.1 * torch.randn_like(p))  # no norm at one, no bias at zero
    meta = Meta(
        method="swav",
        spec=spec.dump(),
        image=ImageSpec(size=size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)),
        data=DataFacts(name="photos", fingerprint="f" * 64, images=1234),
        step=777,
        sha256="a" * 64,
    )
    return LoadedEncoder(backbone.eval().requires_grad_(False), spec, meta, Path("last.safetensors"))


def code_in(card: Path) -> str:
    """The one block of Python in a card."""
    blocks = re.findall(r"```python\n(.*?)```", card.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])
