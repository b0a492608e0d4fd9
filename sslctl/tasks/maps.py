"""What an encoder sees, as pictures: attention maps and their scores by true masks, patch features as colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from . import options as opt
from .feedback import Feedback
from .options import Option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..data import Source
    from ..runs.encoder import LoadedEncoder
    from ..visualize.maps.attention import AttentionMaps as Maps
    from ..visualize.maps.attention import MapOptions
    from .results import AttentionMaps, PatchColours

OWN, RANDOM, SHARP, CENTRE = "this encoder", "random weights", "random, as sharp", "centre prior"


@opt.task
def attn_map(
    encoder: opt.Encoder,
    images: Annotated[str | Path, Option("An image, a video, or what --data takes.", metavar="IMAGES", type=str)],
    *,
    out: Annotated[Path | None, Option("Folder for the pictures: maps, or none with --masks.")] = None,
    kind: Annotated[
        str,
        Option("attention or rollout (ViT), grad-cam (CNN), activation; auto: attention of a ViT, grad-cam of a CNN."),
    ] = "auto",
    block: Annotated[int, Option("Which block's attention; -1 is the last.")] = -1,
    threshold: Annotated[float, Option("Share of the mass that a mask keeps.", min=0, max=1)] = 0.6,
    size: opt.Size = None,
    pictures: Annotated[
        str | Sequence[str], Option("Which to write, of heads, masks, mean, union, overlay, sheet.", type=str)
    ] = "heads,masks,mean,union,overlay,sheet",
    npy: Annotated[bool, Option("Write the numbers too: maps x rows x columns, as .npy.")] = False,
    masks: Annotated[Path | None, Option("Folder of true masks named as the images: score the maps by them.")] = None,
    device: opt.Device = "auto",
    **listeners: Unpack[opt.Listeners],
) -> AttentionMaps:
    """Paint what a network looks at in images or a video; with ``masks``, score how well that finds the objects.

    ``result.failed`` lists the images that cannot be read. Raises SpecError for a kind of map that the network does
    not have, DataError where nothing can be read.
    """
    from ..runtime.device import choose_device
    from ..visualize.maps.attention import MapOptions, choose_kind
    from ..visualize.maps.pictures import parse_pictures, write_maps
    from ..visualize.maps.video import is_video, write_video
    from .encoders import load, open_images
    from .results import AttentionMaps

    feedback = Feedback.of(opt.with_defaults(opt.Listeners, listeners))
    wanted = parse_pictures(pictures if isinstance(pictures, str) else ",".join(pictures))
    model = load(encoder, notes=feedback.notes)
    backbone, image = model.backbone.to(choose_device(device)), model.meta.image
    map_options = MapOptions(choose_kind(backbone, kind), size or image.size, image.mean, image.std, block, threshold)
    result: dict[str, Any] = {"arch": model.arch, "kind": map_options.kind, "block": block}
    result |= {"threshold": threshold, "area": map_options.size}
    target, video = Path("maps" if out is None else out), Path(images).expanduser()
    if is_video(video):
        label = f"{map_options.kind} of {model.arch} over the frames of {images}, into {target}"
        feedback.note(label)
        return AttentionMaps(
            **result, out=str(target), **write_video(backbone, video, target, map_options, feedback.counter(label))
        )
    source = open_images(images)
    failed: list[dict[str, str]] = []
    if masks is not None:
        scores, failed = _score(model, source, Path(masks), map_options, feedback)
        result |= scores
    if masks is None or out is not None:
        label = f"{map_options.kind} of {model.arch} over {len(source)} images, into {target}"
        feedback.note(label)
        written, failed = write_maps(
            backbone, source, target, map_options, pictures=wanted, raw=npy, progress=feedback.counter(label)
        )
        result |= {"out": str(target), "images": written}
    found = AttentionMaps(**result, failed=failed)
    feedback.warn_unreadable(found.failed or (), len(source))
    return found


def _score(
    encoder: LoadedEncoder, source: Source, masks: Path, map_options: MapOptions, feedback: Feedback
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Scores of the maps by the true ``masks``, of random weights' maps and a centre prior; and unreadable images."""
    from ..evaluate.baselines import random_backbone
    from ..visualize.maps.attention import attention_maps
    from ..visualize.maps.localisation import centre_prior, gain, match_entropy, score_maps, summarise
    from ..visualize.maps.true_masks import TrueMasks

    truth, net = TrueMasks(masks), encoder.backbone
    fresh = random_backbone(encoder.spec.backbone, encoder.meta.image.size).to(next(net.parameters()))

    def maps_of(image: NDArray[np.uint8]) -> dict[str, Maps]:
        own, random = attention_maps(net, image, map_options), attention_maps(fresh, image, map_options)
        centre = centre_prior(image, map_options, net.stride)
        return {OWN: own, RANDOM: random, SHARP: match_entropy(random, own), CENTRE: centre}

    label = f"{map_options.kind} maps of {encoder.arch} against the masks in {masks}"
    feedback.note(label)
    found, failed = score_maps(source, truth, maps_of, feedback.counter(label))
    if truth.missing:
        feedback.warn(f"{len(truth.missing)} images have no mask and are left out, the first: {truth.missing[0]}")
    gains = {name: gain(found[OWN], found[name]) for name in (RANDOM, SHARP, CENTRE)}
    return {
        "scored": len(found[OWN]["best head"]["jaccard"]),
        "without_mask": len(truth.missing),
        "scores": {name: [row.as_dict() for row in summarise(part)] for name, part in found.items()},
        "gains": {name: {"jaccard": v, "interval": (low, high)} for name, (v, low, high) in gains.items()},
    }, failed


@opt.task
def pca(
    encoder: opt.Encoder,
    images: opt.Images,
    *,
    out: Annotated[Path, Option("Folder for the pictures.")] = Path("pca"),
    whole: Annotated[bool, Option("Paint every patch; treat none as background.")] = False,
    size: opt.Size = None,
    device: opt.Device = "auto",
    **listeners: Unpack[opt.Listeners],
) -> PatchColours:
    """Paint the patch features of images in colours that all images share, by principal components.

    ``result.failed`` lists the images that cannot be read. Raises DataError where none can be read.
    """
    from ..runtime.device import choose_device
    from ..visualize.maps.patch_pca import feature_function, write_pca
    from .encoders import load, open_images
    from .results import Explained, Failed, Painted, PatchColours

    feedback, out = Feedback.of(opt.with_defaults(opt.Listeners, listeners)), Path(out)
    model = load(encoder, notes=feedback.notes)
    backbone, image = model.backbone.to(choose_device(device)), model.meta.image
    source, area = open_images(images), size or image.size
    label = f"patch features of {model.arch} over {len(source)} images, into {out}"
    feedback.note(label)
    features_of = feature_function(backbone, image.mean, image.std, area)
    written, failed, basis = write_pca(
        features_of, backbone.stride, source, out, whole=whole, progress=feedback.counter(label)
    )
    result = PatchColours(
        out=str(out),
        sheet=str(out / "sheet.png"),
        arch=model.arch,
        area=area,
        whole=whole,
        explained=Explained(first=basis.explained[0], colours=list(basis.explained[1:])),
        images=[Painted(**entry) for entry in written],
        failed=[Failed(**entry) for entry in failed],
    )
    feedback.warn_unreadable(result.failed, len(source))
    return result
