"""``sslctl pca``: patch features of images as colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..tasks.results import PatchColours


def pca(result: PatchColours) -> str:
    """Paint the patch features of images in colours that all images share.

    The first principal component tells object from ground, three of the object's become red, green and blue: alike
    colours mean alike features, across images. A ViT's patch tokens, or the last map of a convolutional net.

    Examples:

      sslctl pca runs/dino-vit_small_patch16_224-photos-4d5e6f horses/ --out pca/ --size 448

      sslctl pca timm:vit_small_patch14_dinov2 horses/ --whole
    """
    return result.sheet
