"""What a backbone computed at each place of the image: its last feature map, and what of it made the embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SpecError
from .backbone import Backbone


def feature_map(backbone: Backbone, x: Tensor) -> Tensor:
    """Features at each place: (B, 3, H, W) -> (B, D, H / stride, W / stride).

    A ViT's patch tokens after the final norm ("x_norm_patchtokens" of DINOv2; [CLS] and registers left out); of any
    other net the last map before pooling. Raises SpecError for a net without such a map.
    """
    if backbone.kind == "vit":
        return patch_grid(backbone, backbone.tokens(x), x)
    out: Tensor = backbone.net.forward_features(x)
    if out.ndim != 4:
        raise SpecError(f"{type(backbone.net).__name__} has no map of features", "take a ViT, ResNet or ConvNeXt")
    return out


def patch_grid(backbone: Backbone, tokens: Tensor, x: Tensor) -> Tensor:
    """The patches among a ViT's ``tokens`` (B, N, D) of images ``x``, each in its place: (B, D, rows, columns)."""
    patches = tokens[:, backbone.net.num_prefix_tokens :].transpose(1, 2)  # (B, D, h w)
    grid: Tensor = patches.reshape(*patches.shape[:2], *(size // backbone.patch for size in x.shape[-2:]))
    return grid


def activation(backbone: Backbone, x: Tensor) -> Tensor:
    """Length of the feature at each place: (B, 3, H, W) -> (B, 1, H / stride, W / stride)."""
    length: Tensor = torch.linalg.vector_norm(feature_map(backbone, x), dim=1, keepdim=True)
    return length


def own_grad_cam(backbone: Backbone, x: Tensor) -> Tensor:
    """Which places made the embedding what it is: (B, 3, H, W) -> (B, 1, H / stride, W / stride), never negative.

    Grad-CAM (Selvaraju et al. 2017, equations 1 and 2) without a class: its score is the product of the averaged map
    with its own direction, of which the gradient is that direction, the same at each place. So this is each place's
    feature times that direction. Where a net has a norm after the average, it is left out: lengths are equal behind it.
    Raises SpecError for a ViT, whose output reads its patches inside the blocks only.
    """
    if backbone.kind == "vit":
        raise SpecError("--kind grad-cam is for convolutional nets", "--kind attention or rollout")
    features = feature_map(backbone, x)
    direction = F.normalize(features.mean((2, 3), keepdim=True), dim=1)  # (B, D, 1, 1)
    return (direction * features).sum(1, keepdim=True).relu()
