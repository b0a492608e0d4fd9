"""``sslctl embed``: features of images as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..tasks.results import Embeddings


def embed(result: Embeddings) -> str:
    """Write the features of images into a file.

    One row an image, in the order of the set; names and labels stand in a .jsonl beside it (in parquet: in columns).

    The file is there when it is whole. The same command after an interruption goes on where it was.

    Examples:

      sslctl embed runs/swav-resnet18-demo-1a2b3c photos/ --out photos.npy

      sslctl embed last.safetensors --data photos/ --features last-4 --out photos.parquet

      sslctl embed timm:vit_small_patch14_dinov2 photos/ --features patches --precision bf16 --out maps.safetensors
    """
    return result.out
