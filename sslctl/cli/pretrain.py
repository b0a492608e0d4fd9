"""``sslctl pretrain``: learn an encoder from images without labels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CheckpointError, SpecError
from ..runs.sinks import require
from ..spec.parsing import check_spec, read_spec_file
from ..spec.schema import Spec
from . import output
from .following import Following
from .options import Json
from .progress import describe_typical, typical
from .spec_options import AUTO, BatchSizeOrAuto, open_with_notes, option, takes_spec

if TYPE_CHECKING:
    from ..engine.setup import RunInputs
    from ..profiling.estimate import Size

    Settle = Callable[[RunInputs], RunInputs]


@takes_spec
def pretrain(
    spec: Spec,
    resume: Annotated[
        bool | None,
        option("Insist on going on, or on a new directory; by default as is there.", "--resume/--fresh"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and write nothing.")] = False,
    preview: Annotated[Path | None, option("Write a PNG of some images' views, and stop.")] = None,
    batch_size: BatchSizeOrAuto = None,
    as_json: Json = False,
) -> None:
    """Learn an encoder from unlabelled images.

    Prints the run directory. The same command into the same directory goes on where it was interrupted.

    Examples:

      sslctl pretrain --data demo --method byol --recipe small

      sslctl pretrain --data photos/ --method swav --multi-crop 2x160+4x96

      sslctl pretrain --data photos/ --method dino --probe-data labelled/ --probe-every 500

      sslctl pretrain --data photos/ --method simclr --recipe resnet50 --batch-size auto --out runs/photos

      sslctl pretrain --spec runs/swav-resnet18-demo-1a2b3c/spec.yaml --set optim.lr=0.3 --out runs/lower
    """
    settle = partial(_settle_batch, resume=resume) if batch_size == AUTO else _as_it_is
    if preview is not None:
        _preview(spec, preview, as_json)
    elif dry_run:
        _dry_run(spec, settle, as_json)
    else:
        _train(spec, resume, settle, as_json)


def _as_it_is(around: RunInputs) -> RunInputs:
    return around


def _settle_batch(around: RunInputs, resume: bool | None) -> RunInputs:
    """``around`` with the batch of the run that stands in ``--out``, or with one that fits: a number, from then on."""
    from ..profiling.batch_finder import batch_that_fits, with_run

    spec = around.spec
    if spec.run.out is None:
        raise SpecError("--batch-size auto: without --out the same command could not go on", "add --out runs/NAME")
    stands = Path(spec.run.out) / "spec.yaml"
    if resume is not False and stands.exists():
        batch = check_spec(read_spec_file(stands)).run.batch_size
        output.note(f"--batch-size auto: {batch}, as in {stands}")
        return with_run(around, batch_size=batch)
    output.note(f"--batch-size auto: trying {spec.run.batch_size} or what fits")
    batch, found = batch_that_fits(around, lambda trial: output.detail(f"{trial.batch} images fit"))
    keep = found.accumulate(spec)
    other = f"; --set optim.accumulate={keep} would keep {spec.run.batch_size}" if keep else ""
    output.note(f"--batch-size auto: {batch}{other}")
    return with_run(around, batch_size=batch)


def _train(spec: Spec, resume: bool | None, settle: Settle, as_json: bool) -> None:
    output.note(f"{spec.method.name} · {spec.backbone.arch} · {spec.data.path}")
    require(spec.run.log_to)

    from ..engine.loop import train
    from ..engine.setup import build
    from ..profiling.estimate import estimate
    from ..runs.directory import ReadOnlyRun, Run, default_directory, fresh_directory
    from ..runtime import distributed
    from ..runtime.device import choose_device
    from ..runtime.stop import StopRequest

    distributed.join(choose_device(spec.run.device))
    around = open_with_notes(spec, settle)

    directory = Path(around.spec.run.out) if around.spec.run.out else default_directory(around.spec)
    if resume is False:
        directory = distributed.by_first(lambda: fresh_directory(directory))
    training = build(around)
    _say_memory(estimate(training))
    opened = Run(directory) if distributed.rank() == 0 else ReadOnlyRun(directory)
    with opened as run, StopRequest(spec.run.max_time, output.warn) as stop:
        if resume and not any(run.checkpoints.glob("*.safetensors")):
            raise CheckpointError(f"--resume: {directory} holds no checkpoint", "leave --resume out to begin")
        run.claim(around.spec)
        output.note(f"{len(around.train)} images, {training.total} steps of {spec.run.batch_size}, into {directory}")
        if training.probe is not None:
            output.note(f"probe every {training.probe_every} steps on {around.spec.run.probe_data}; best: {run.best}")
        if training.compiled:
            output.note(
                "networks are compiled: the first steps take a minute or two, less when torch has it in its cache"
            )
        with Following(training, run) as following:
            meta = train(training, run, stop, following.report)
        last = run.last_line()
        rates = typical(run.lines())
    output.note(f"{describe_typical(rates)}; more: sslctl bench --spec {run.spec_file}")
    result = {
        "run": str(directory),
        "checkpoint": str(run.last),
        "steps": int(meta.step),
        "loss": last.get("loss"),
        "health": last.get("health"),
    } | rates
    if training.probe is not None:
        result |= {"probe": {k: v for k, v in last.items() if k.startswith("probe_")}, "best": str(run.best)}
    output.emit(result, as_json, str(directory))


def _say_memory(size: Size) -> None:
    """What a step will need, before the first one; a warning with the way out where it is more than there is."""
    output.note(f"memory: {size}")
    if size.fits:
        return
    if size.accumulate:
        whole = f"--set optim.accumulate={size.accumulate} keeps the batch, in {size.accumulate} passes"
        output.warn(f"this may not fit into memory: {whole}; or a smaller --batch-size (sslctl bench --find-batch)")
    else:
        output.warn("this may not fit into memory, whatever the batch: smaller views (--multi-crop) or --arch")


def _dry_run(spec: Spec, settle: Settle, as_json: bool) -> None:
    around = open_with_notes(spec, settle)

    from ..engine.setup import build
    from ..methods.advice import derivation, warnings
    from ..profiling.estimate import estimate

    training = build(around)
    size = estimate(training)
    derived = derivation(around.spec, len(around.train))
    counts = {"images": len(around.train), "steps": training.total}
    told = {"derivation": derived, "warnings": warnings(around.spec, len(around.train))}
    result = {"spec": around.spec.dump()} | counts | size.as_dict() | told
    text = around.spec.to_yaml() + "\n".join(
        [
            f"# images       {len(around.train)}",
            f"# steps        {training.total} ({training.per_epoch} to an epoch)",
            f"# parameters   {size.parameters:,} ({size.backbone_parameters:,} in the backbone)",
            f"# memory       {size}",
            *(f"# {line}" for line in derived),
        ]
    )
    output.emit(result, as_json, text)


def _preview(spec: Spec, path: Path, as_json: bool) -> None:
    around = open_with_notes(spec)

    import io

    from ..files import write_atomically
    from ..views.augment import Augment
    from ..views.preview import contact_sheet

    count = min(8, len(around.train))
    images = [around.train.read(i) for i in range(count)]
    names = [around.train.item_name(i) for i in range(count)]
    buffer = io.BytesIO()
    contact_sheet(images, Augment(around.plan, spec.run.seed), names).save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
    result: dict[str, Any] = {"preview": str(path), "images": count, "views": len(around.plan.all)}
    output.emit(result, as_json, str(path))
