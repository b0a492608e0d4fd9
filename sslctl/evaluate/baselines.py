"""What a score has to beat: the pixels themselves, and the same network with random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..backbones import Backbone, build_backbone
from ..spec.schema import BackboneSpec
from ..views.evaluation import EvalTransform
from ..views.recipe import IMAGENET_MEAN, IMAGENET_STD

PIXELS = EvalTransform(32, IMAGENET_MEAN, IMAGENET_STD)
"""How images come to the pixel baseline: short side to 32 px, the centre; the same whatever the run normalises by."""


class Pixels(nn.Module):
    """Pixels as they are: (B, 3, S, S) -> (B, 3 S S)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def random_backbone(spec: BackboneSpec, image_size: int, seed: int = 0) -> Backbone:
    """Return the backbone of ``spec`` as it is before any training; the global generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_backbone(spec, image_size).eval().requires_grad_(False)
