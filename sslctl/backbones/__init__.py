"""timm models as encoders: one call, its features, positions, attention; nobody else knows a network's insides."""

from .attention import activation, attention, own_grad_cam, rollout
from .backbone import Backbone, Features, pooled
from .build import build_backbone, hollow_backbone, is_vit_arch, without_drop_path

__all__ = [
    "Backbone",
    "Features",
    "activation",
    "attention",
    "build_backbone",
    "is_vit_arch",
    "hollow_backbone",
    "own_grad_cam",
    "pooled",
    "rollout",
    "without_drop_path",
]
