"""timm models as encoders: stems, positions, tokens, attention; no other place knows a backbone's insides."""

from .attention import attention
from .build import build_backbone, without_drop_path
from .encoder import Backbone, dino_positions

__all__ = ["Backbone", "attention", "build_backbone", "dino_positions", "without_drop_path"]
