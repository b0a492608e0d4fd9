"""``sslctl export``: the encoder as a file or folder that other tools load."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..tasks.results import Export


def export(result: Export) -> str:
    """Write the encoder in another tool's format, with a card.

    That tool, in a fresh process, must give the same features of 16 real images; else nothing is left behind.

    Examples:

      sslctl export runs/swav-resnet18-demo-1a2b3c --format timm --out encoder/

      sslctl export runs/dino-vit-photos-1a2b3c --format onnx --features all --out encoder.onnx
    """
    return result.out
