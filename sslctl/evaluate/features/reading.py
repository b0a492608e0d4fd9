"""What is read of a frozen backbone, by name: the feature that evaluation uses, tokens, blocks, the map of patches."""

from __future__ import annotations

import re

from torch import Tensor, nn

from ...backbones import Backbone, feature_map
from ...errors import SpecError
from ..linear.protocols import Read, Reader

KINDS = "pooled (what evaluation uses), cls, mean (of the patches), patches (their map), last-N (the class tokens of N)"


class Reading(nn.Module):
    """Features ``kind`` of images: (B, 3, H, W) -> (B, ...).

    ``pooled``: (B, dim), what the encoder gives and every evaluation uses. ``cls``: (B, D), the class token after the
    final norm. ``mean``: (B, D), the mean of the last map. ``patches``: (B, D, h, w), that map: of a ViT its patch
    tokens after the final norm. ``last-N``: (B, N D), class tokens after the last N blocks, each through the final
    norm, the last block's at the end (facebookresearch/dino, eval_linear.py with ``--n_last_blocks``).
    Raises SpecError for another word, and for what the net does not have.
    """

    def __init__(self, backbone: Backbone, kind: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.kind = kind
        self.blocks: Reader | None = None
        found = re.fullmatch(r"last-([1-9]\d{0,2})", kind)
        if not found and kind not in ("pooled", "cls", "mean", "patches"):
            raise SpecError(f"--features '{kind}': no such features", f"one of {KINDS}")
        if (found or kind == "cls") and not (backbone.kind == "vit" and backbone.net.has_class_token):
            raise SpecError(f"--features {kind}: {type(backbone.net).__name__} has no class token", "pooled or mean")
        if found:
            wanted, has = int(found[1]), len(backbone.net.blocks)
            if wanted > has:
                raise SpecError(f"--features {kind}: the backbone has {has} blocks", f"--features last-{has}")
            self.blocks = Reader(backbone, [Read(wanted)])

    def forward(self, x: Tensor) -> Tensor:
        if self.blocks is not None:
            out: Tensor = self.blocks(x)
        elif self.kind == "pooled":
            out = self.backbone(x)  # the very pass of evaluation, to the bit
        elif self.kind == "cls":
            out = self.backbone.tokens(x)[:, 0]
        else:
            out = feature_map(self.backbone, x)
        return out.mean((2, 3)) if self.kind == "mean" else out
