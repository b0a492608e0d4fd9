"""timm models as encoders: stems, positions, tokens, attention; no other place knows a backbone's insides."""

from .attention import attention, rollout
from .backbone import Backbone, dino_positions
from .build import build_backbone, hollow_backbone, without_drop_path
from .feature_map import activation, feature_map, own_grad_cam

__all__ = [
    "Backbone",
    "activation",
    "attention",
    "build_backbone",
    "hollow_backbone",
    "dino_positions",
    "feature_map",
    "own_grad_cam",
    "rollout",
    "without_drop_path",
]
