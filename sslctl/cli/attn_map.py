"""``sslctl attn-map``: where a network looks, as pictures, and how well that finds the objects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import output
from .evaluating import progress
from .looking import Size, list_failed, open_images
from .opening import open_model
from .options import Device, Json, Model
from .scoring_maps import describe, score_masks


def attn_map(
    model: Model,
    images: Annotated[
        str, typer.Argument(metavar="IMAGES", help="An image, a film, or what --data takes.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the pictures: maps, or none with --masks.", show_default=False),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            help="attention or rollout (ViT), grad-cam (CNN), activation; auto: attention of a ViT, grad-cam of a CNN."
        ),
    ] = "auto",
    block: Annotated[int, typer.Option(help="Which block's attention; -1 is the last.")] = -1,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Share of the mass that a mask keeps.")] = 0.6,
    size: Size = None,
    pictures: Annotated[
        str, typer.Option(help="Which to write, of heads, masks, mean, union, overlay, sheet.")
    ] = "heads,masks,mean,union,overlay,sheet",
    npy: Annotated[bool, typer.Option("--npy", help="Write the numbers too: maps x rows x columns, as .npy.")] = False,
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder of true masks named as the images: score the maps by them.", show_default=False),
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Paint what a network looks at.

    The attention of a ViT's [CLS] token over images of any size, each head, their mean, masks, an overlay, a sheet; of
    a convolutional net the places that make its embedding. With --masks, how well that finds the objects.

    Images that cannot be read are listed at the end, with exit code 3.

    Examples:

      sslctl attn-map runs/dino-vit_tiny_patch16_224-photos-1a2b3c photo.jpg

      sslctl attn-map last.safetensors photos/ --out maps/ --size 480 --threshold 0.5 --npy

      sslctl attn-map timm:vit_small_patch16_224 holiday.mp4 --kind rollout

      sslctl attn-map last.safetensors val/ --masks masks/
    """
    from ..runtime.device import choose_device
    from ..visualize.maps.attention import Look, choose_kind
    from ..visualize.maps.pictures import parse_pictures, write_maps
    from ..visualize.maps.video import is_video, write_video

    wanted = parse_pictures(pictures)
    encoder = open_model(model)
    backbone, image = encoder.backbone.to(choose_device(device)), encoder.meta.image
    look = Look(choose_kind(backbone, kind), size or image.size, image.mean, image.std, block, threshold)
    result: dict[str, Any] = {"arch": encoder.spec.backbone.arch, "kind": look.kind, "block": block}
    result |= {"threshold": threshold, "area": look.size}
    target = Path("maps") if out is None else out
    film = Path(images).expanduser()
    if is_video(film):
        output.note(f"{look.kind} of {result['arch']} over the frames of {images}, into {target}")
        result |= {"out": str(target), **write_video(backbone, film, target, look, progress())}
        output.emit(result, as_json, result["files"][0] if len(result["files"]) == 1 else str(target))
        return
    source = open_images(images)
    text: list[str] = []
    failed: list[dict[str, str]] = []
    if masks is not None:
        scores, failed = score_masks(encoder, source, masks, look)
        result |= scores
        text.append(describe(scores))
    if masks is None or out is not None:
        output.note(f"{look.kind} of {result['arch']} over {len(source)} images, into {target}")
        written, failed = write_maps(backbone, source, target, look, pictures=wanted, raw=npy, progress=progress())
        result |= {"out": str(target), "images": written}
        text += [entry["files"][-1] for entry in written if entry["files"]]
    output.emit(result | {"failed": failed}, as_json, "\n".join(text))
    list_failed(failed, len(source))
