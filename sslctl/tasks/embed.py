"""Features of images as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from ..errors import SpecError
from . import options as opt
from .feedback import Feedback
from .options import Option, one_of

if TYPE_CHECKING:
    from .results import Embeddings


@opt.task
def embed(
    encoder: opt.Encoder,
    images: Annotated[str | Path | None, Option("As --data.", metavar="[IMAGES]", type=str | None)] = None,
    *,
    out: Annotated[Path | None, Option("File to write: .npy, .safetensors or .parquet.")] = None,
    data: opt.Data = None,
    split: opt.Split = "train",
    features: Annotated[
        str, Option("pooled, cls, mean (of patches), patches (their map), or last-N (blocks).")
    ] = "pooled",
    format: Annotated[str | None, Option("npy, safetensors or parquet; by default as --out ends.")] = None,
    bad_images: Annotated[str, Option("skip those that cannot be read, or fail.")] = "skip",
    download: opt.Download = False,
    force: opt.Force = False,
    **options: Unpack[opt.MachineOptions],
) -> Embeddings:
    """Write the features of images into the file ``out``; without ``images``, of those that it was trained on.

    An interrupted call goes on where it was. ``Encoder.embed`` returns features instead. Raises SpecError for options
    that cannot be used, DataError where no image can be read (with ``bad_images="fail"``, where one cannot),
    CheckpointError for what is not an encoder, MachineError where the disk refuses.
    """
    target = _check(out, images, data, split, bad_images, force)

    from ..evaluate.features.cache import cache_key
    from ..evaluate.features.reading import Reading
    from ..evaluate.features.writing import Order, find_form, write_features
    from .encoders import Machine, data_of, load, open_as_is
    from .results import Checkpoint, Dataset, Embeddings, Failed

    form = find_form(target, format)
    o = opt.with_defaults(opt.MachineOptions, options)
    feedback, machine = Feedback.of(o), Machine.of(o)
    model = load(encoder, notes=feedback.notes)
    reading = Reading(model.backbone, features)
    given = data if images is None else images
    spec = data_of(model, given)
    if given is None and split == "val" and spec.val is not None:
        spec = spec.model_copy(update={"path": spec.val})
    source = open_as_is(spec, split, download, feedback)
    transform, identity = model.transform(), model.identity()
    about: dict[str, Any] = {
        "features": features,
        "arch": model.arch,
        "size": model.meta.image.size,
        "precision": machine.precision,
    }
    encoder_sha, fingerprint = identity["sha256"], source.fingerprint()
    key = cache_key([identity, machine.batch_size], source, transform, machine.device, machine.dtype, features)
    order = Order(target, form, key, about | {"encoder": encoder_sha, "images": fingerprint})
    label = f"{features} features of {len(source)} images, {model.arch}, into {target}"

    def starting(before: int) -> None:
        feedback.note(label + (f", going on at image {before}" if before else ""))

    done = write_features(
        reading,
        source,
        transform,
        order,
        batch_size=machine.batch_size,
        workers=machine.workers,
        device=machine.device,
        dtype=machine.dtype,
        fail_on_bad=bad_images == "fail",
        starting=starting,
        progress=feedback.counter(label),
    )
    skipped = [Failed(image=source.item_name(i), reason=reason) for i, reason in done.skipped]
    feedback.warn_unreadable(skipped, len(source), most=5)
    return Embeddings(
        out=str(target),
        names=None if done.names is None else str(done.names),
        format=form,
        images=done.images,
        shape=[done.images, *done.shape],
        **about,
        data=Dataset(name=source.name, fingerprint=fingerprint),
        checkpoint=Checkpoint(path=str(model.path), sha256=encoder_sha),
        before=done.before,
        skipped=skipped,
    )


def _check(out: Path | None, images: object, data: object, split: str, bad_images: str, force: bool) -> Path:
    """Return ``out``; SpecError for options that cannot be used, before anything heavy is imported."""
    if out is None:
        raise SpecError("missing --out", "for example --out features.npy")
    if images is not None and data is not None:
        raise SpecError(f"--data '{data}': images are given already, '{images}'", "leave one of them out")
    one_of("--split", split, ("train", "val"), "part")
    one_of("--bad-images", bad_images, ("skip", "fail"))
    if Path(out).exists() and not force:
        raise SpecError(f"--out {out}: exists already", "give another name, or replace it with --force")
    return Path(out)
