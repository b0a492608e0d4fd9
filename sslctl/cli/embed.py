"""``sslctl embed``: features of images as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SpecError
from . import output
from .evaluating import progress
from .opening import open_model
from .options import BatchSize, Device, Download, Force, Json, Model, Precision, Workers

if TYPE_CHECKING:
    from torch import device, dtype

    from ..data import Source
    from ..evaluate.features.embed import Embedded, Order
    from ..runs.encoder import LoadedEncoder
    from ..views.evaluation import EvalTransform


def embed(
    model: Model,
    images: Annotated[str | None, typer.Argument(metavar="[IMAGES]", help="As --data.", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write: .npy, .safetensors or .parquet.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Images, with labels or without; by default those of the run.", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="Part of a set that has several: train or val.")] = "train",
    features: Annotated[
        str, typer.Option(help="pooled, cls, mean (of patches), patches (their map), or last-N (blocks).")
    ] = "pooled",
    format: Annotated[
        str | None, typer.Option(help="npy, safetensors or parquet; by default as --out ends.", show_default=False)
    ] = None,
    bad_images: Annotated[str, typer.Option(help="skip those that cannot be read, or fail.")] = "skip",
    device: Device = "auto",
    precision: Precision = "fp32",
    workers: Workers = None,
    batch_size: BatchSize = 256,
    download: Download = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write the features of images into a file.

    One row an image, in the order of the set; names and labels stand in a .jsonl beside it (in parquet: in columns).

    The file is there when it is whole. The same command after an interruption goes on where it was.

    Examples:

      sslctl embed runs/swav-resnet18-demo-1a2b3c photos/ --out photos.npy

      sslctl embed last.safetensors --data photos/ --features last-4 --out photos.parquet

      sslctl embed timm:vit_small_patch14_dinov2 photos/ --features patches --precision bf16 --out maps.safetensors
    """
    target = _check(out, images, data, split, bad_images, force)

    from ..evaluate.features.embed import embed as write
    from ..evaluate.features.embed import find_form
    from ..evaluate.features.reading import Reading
    from ..runtime import distributed
    from ..runtime.device import choose_device, choose_dtype, choose_workers

    form = find_form(target, format)
    chosen = choose_device(device)
    dtype = choose_dtype(precision, chosen)
    distributed.join(chosen)
    encoder = open_model(model)
    reading = Reading(encoder.backbone, features)
    source = _open(encoder, images or data, split, download)
    transform, order = _order(encoder, source, features, chosen, dtype, batch_size, target, form)

    def starting(before: int) -> None:
        went_on = f", going on at image {before}" if before else ""
        output.note(f"{features} features of {len(source)} images, {order.meta['arch']}, into {out}{went_on}")

    done = write(
        reading,
        source,
        transform,
        order,
        batch_size=batch_size,
        workers=choose_workers(workers),
        device=chosen,
        dtype=dtype,
        fail_on_bad=bad_images == "fail",
        starting=starting,
        progress=progress(),
    )
    _tell(order, done, source, encoder, as_json)


def _check(out: Path | None, images: str | None, data: str | None, split: str, bad_images: str, force: bool) -> Path:
    """``out``; SpecError for words that cannot be meant, before anything heavy is imported."""
    if out is None:
        raise SpecError("--out is missing", "for example --out features.npy")
    if images is not None and data is not None:
        raise SpecError(f"--data '{data}': images are given already, '{images}'", "leave one of them out")
    for option, value, known in (("--split", split, ("train", "val")), ("--bad-images", bad_images, ("skip", "fail"))):
        if value not in known:
            raise SpecError(f"{option} '{value}': no such choice", f"{option} {known[0]} or {known[1]}")
    if out.exists() and not force:
        raise SpecError(f"--out {out}: is there already", "give another name, or replace it with --force")
    return out


def _order(
    encoder: LoadedEncoder,
    source: Source,
    features: str,
    device: device,
    dtype: dtype,
    batch_size: int,
    out: Path,
    form: str,
) -> tuple[EvalTransform, Order]:
    from ..evaluate.features.cache import cache_key
    from ..evaluate.features.embed import Order

    image = encoder.meta.image
    transform = image.transform()
    identity = encoder.identity()
    about = {
        "features": features,
        "arch": encoder.spec.backbone.arch,
        "size": image.size,
        "precision": str(dtype).removeprefix("torch."),
        "encoder": identity["sha256"],
        "images": source.fingerprint(),
    }
    return transform, Order(
        out, form, cache_key([identity, batch_size], source, transform, device, dtype, features), about
    )


def _tell(order: Order, done: Embedded, source: Source, encoder: LoadedEncoder, as_json: bool) -> None:
    skipped = [{"image": source.item_name(i), "reason": reason} for i, reason in done.skipped]
    for entry in skipped[:5]:
        output.warn(f"{entry['image']}: {entry['reason']}")
    if skipped:
        output.warn(f"{len(skipped)} of {len(source)} images cannot be read and are left out")
    about = {key: value for key, value in order.meta.items() if key not in ("encoder", "images")}
    result = {
        "out": str(order.out),
        "names": None if done.beside is None else str(done.beside),
        "format": order.form,
        "images": done.images,
        "shape": [done.images, *done.shape],
        **about,
        "data": {"name": source.name, "fingerprint": order.meta["images"]},
        "checkpoint": {"path": str(encoder.path), "sha256": order.meta["encoder"]},
        "before": done.before,
        "skipped": skipped,
    }
    output.emit(result, as_json, str(order.out))


def _open(encoder: LoadedEncoder, path: str | None, split: str, download: bool) -> Source:
    from ..data import open_one
    from ..spec.schema import DataSpec

    if path is None and encoder.meta.imported is not None:
        raise SpecError(
            f"{encoder.path}: these weights are no run's, so there are no images of their own", "give IMAGES"
        )
    spec = encoder.spec.data if path is None else DataSpec(path=path)
    if path is None and split == "val" and spec.val is not None:
        spec = spec.model_copy(update={"path": spec.val})
    source = open_one(spec.model_copy(update={"download": download}), "val" if split == "val" else "train")
    for line in source.notes:
        output.note(line)
    return source
