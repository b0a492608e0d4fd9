"""What is read of a frozen backbone, by name: the feature that evaluation uses, tokens, blocks, the map of patches."""

from __future__ import annotations

import re

from torch import Tensor, nn

from ...backbones import Backbone
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
        if (found or kind == "cls") and not backbone.has_class_token:
            raise SpecError(f"--features {kind}: {backbone.family} has no class token", "pooled or mean")
        if kind in ("mean", "patches") and not backbone.has_map:
            raise SpecError(f"--features {kind}: {backbone.family} has no map of features", "--features pooled")
        if found:
            wanted, has = int(found[1]), backbone.depth
            if wanted > has:
                raise SpecError(f"--features {kind}: the backbone has {has} blocks", f"--features last-{has}")
            self.blocks = Reader(backbone, [Read(wanted)])

    def forward(self, x: Tensor) -> Tensor:
        if self.blocks is not None:
            out: Tensor = self.blocks(x)
            return out
        found = self.backbone(x)
        if self.kind in ("pooled", "cls"):
            return found.pooled if self.kind == "pooled" else found.prefix[:, 0]  # type: ignore[no-any-return]
        return found.map.mean((2, 3)) if self.kind == "mean" else found.map  # type: ignore[no-any-return]
