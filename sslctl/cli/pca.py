"""``sslctl pca``: patch features of images as colours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import output
from .evaluating import progress
from .looking import Images, Size, list_failed, open_images
from .opening import open_model
from .options import Device, Json, Model


def pca(
    model: Model,
    images: Images,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("pca"),
    whole: Annotated[bool, typer.Option("--whole", help="Paint every patch; none is ground.")] = False,
    size: Size = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Paint the patch features of images in colours that all images share.

    The first principal component tells object from ground, three of the object's become red, green and blue: alike
    colours mean alike features, across images. A ViT's patch tokens, or the last map of a convolutional net.

    Examples:

      sslctl pca runs/dino-vit_small_patch16_224-photos-4d5e6f horses/ --out pca/ --size 448

      sslctl pca timm:vit_small_patch14_dinov2 horses/ --whole
    """
    from ..runtime.device import choose_device
    from ..visualize.maps.patch_pca import sight, write_pca

    encoder = open_model(model)
    backbone, image = encoder.backbone.to(choose_device(device)), encoder.meta.image
    source = open_images(images)
    area = size or image.size
    output.note(f"patch features of {encoder.spec.backbone.arch} over {len(source)} images, into {out}")
    see = sight(backbone, image.mean, image.std, area)
    written, failed, basis = write_pca(see, backbone.stride, source, out, whole=whole, progress=progress())
    result = {
        "out": str(out),
        "sheet": str(out / "sheet.png"),
        "arch": encoder.spec.backbone.arch,
        "area": area,
        "whole": whole,
        "explained": {"first": basis.explained[0], "colours": list(basis.explained[1:])},
        "images": written,
        "failed": failed,
    }
    output.emit(result, as_json, str(out / "sheet.png"))
    list_failed(failed, len(source))
