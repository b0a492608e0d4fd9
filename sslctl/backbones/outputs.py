"""What an encoder can hand out, by name: pooled feature, class token, patch grid."""

from __future__ import annotations

from torch import Tensor

from ..errors import SpecError
from .backbone import VIT_EXAMPLE, Backbone
from .feature_map import feature_map, patch_grid

OUTPUTS = ("pooled", "cls", "patches")


def check_outputs(backbone: Backbone, wanted: str) -> tuple[str, ...]:
    """The names that ``wanted`` stands for: one of OUTPUTS, or ``all`` that this net has. SpecError for any other."""
    has = tuple(name for name in OUTPUTS if name != "cls" or (backbone.kind == "vit" and backbone.net.has_class_token))
    if wanted == "all":
        return has
    if wanted not in has:
        reason = "no such output" if wanted not in OUTPUTS else f"{type(backbone.net).__name__} has no class token"
        raise SpecError(f"--features {wanted}: {reason}", f"one of {', '.join(has)}, all; cls {VIT_EXAMPLE}")
    return (wanted,)


def outputs(backbone: Backbone, x: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """``names`` of OUTPUTS for images x (B, 3, H, W), from one pass: pooled (B, dim), which is what the encoder gives;
    cls (B, D), the class token after the final norm; patches (B, D, H / stride, W / stride), the last map."""
    if backbone.kind == "vit":
        t = backbone.tokens(x)
        found = {"pooled": backbone.net.forward_head(t), "cls": t[:, 0]}
        if "patches" in names:
            found["patches"] = patch_grid(backbone, t, x)
    else:
        features = feature_map(backbone, x) if "patches" in names else backbone.net.forward_features(x)
        found = {"pooled": backbone.net.forward_head(features), "patches": features}
    return {name: found[name] for name in names}
