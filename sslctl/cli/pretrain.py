"""``sslctl pretrain``: learn an encoder from images without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..advice import derivation, warnings
from ..errors import CheckpointError
from ..specfile import merge, parse_set, read_spec_file
from . import output
from .options import Download, Json
from .progress import Progress

if TYPE_CHECKING:
    from ..build import Surroundings
    from ..spec import Data, Spec


def _option(help_: str, *names: str) -> Any:
    """An option that is not part of the spec unless it is given."""
    return typer.Option(*names, help=help_, show_default=False)


def pretrain(
    data: Annotated[str | None, _option("Folder, list, array pack, public set, or demo.")] = None,
    val_data: Annotated[str | None, _option("Images kept for evaluation.")] = None,
    method: Annotated[str | None, _option("Objective; `sslctl methods` lists them.")] = None,
    recipe: Annotated[str | None, _option("Values of a published run, or small: thousands of images.")] = None,
    multi_crop: Annotated[str | None, _option("Views, as 2x160+4x96.")] = None,
    arch: Annotated[str | None, _option("timm model name.")] = None,
    stem: Annotated[str | None, _option("auto, imagenet or small.")] = None,
    epochs: Annotated[float | None, _option("Length of the run.")] = None,
    steps: Annotated[int | None, _option("Length in steps instead.")] = None,
    batch_size: Annotated[int | None, _option("Images in a step, over all processes.")] = None,
    lr: Annotated[float | None, _option("Peak learning rate at batch size 256.")] = None,
    precision: Annotated[str | None, _option("auto, fp32, bf16 or fp16.")] = None,
    device: Annotated[str | None, _option("auto, cpu, cuda, cuda:N or mps.")] = None,
    workers: Annotated[int | None, _option("Loader processes.")] = None,
    seed: Annotated[int | None, _option("Seed of everything drawn.")] = None,
    out: Annotated[str | None, _option("Run directory; by default runs/METHOD-ARCH-DATA-ID.")] = None,
    max_time: Annotated[float | None, _option("Minutes after which to save and stop (75).")] = None,
    checkpoint_every: Annotated[int | None, _option("Steps; by default an epoch.")] = None,
    probe_data: Annotated[str | None, _option("Labelled images on which to score the encoder as it trains.")] = None,
    probe_every: Annotated[int | None, _option("Steps between probes; by default an epoch.")] = None,
    spec: Annotated[Path | None, _option("YAML file, such as a run's spec.yaml.")] = None,
    set_: Annotated[list[str] | None, _option("section.key=value; may be repeated.", "--set")] = None,
    download: Download = False,
    resume: Annotated[
        bool | None,
        _option("Insist on going on, or on a new directory; by default as is there.", "--resume/--fresh"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and write nothing.")] = False,
    preview: Annotated[Path | None, _option("Write a PNG of some images' views, and stop.")] = None,
    as_json: Json = False,
) -> None:
    """Learn an encoder from unlabelled images.

    Prints the run directory. The same command into the same directory goes on where it was interrupted.

    Examples:

      sslctl pretrain --data demo --method byol --recipe small

      sslctl pretrain --data photos/ --method swav --multi-crop 2x160+4x96

      sslctl pretrain --data photos/ --method dino --probe-data labelled/ --probe-every 500

      sslctl pretrain --spec runs/swav-resnet18-demo-1a2b3c/spec.yaml --set optim.lr=0.3 --out runs/lower
    """
    flags = _layer(
        {
            "data": {"path": data, "val": val_data, "workers": workers, "download": download or None},
            "views": {"multi_crop": multi_crop},
            "backbone": {"arch": arch, "stem": stem},
            "method": {"name": method},
            "optim": {"lr": lr},
            "run": {
                "epochs": epochs,
                "steps": steps,
                "batch_size": batch_size,
                "precision": precision,
                "device": device,
                "seed": seed,
                "out": out,
                "max_time": max_time,
                "checkpoint_every": checkpoint_every,
                "probe_data": probe_data,
                "probe_every": probe_every,
            },
        }
    )
    user = merge(read_spec_file(spec) if spec else {}, *map(parse_set, set_ or []))
    if {"epochs", "steps"} & flags.get("run", {}).keys() and isinstance(user.get("run"), dict):
        user["run"] = {k: v for k, v in user["run"].items() if k not in ("epochs", "steps")}
    resolved = _resolve(merge(user, flags), recipe)
    if preview is not None:
        _preview(resolved, preview, as_json)
    elif dry_run:
        _dry_run(resolved, as_json)
    else:
        _train(resolved, resume, as_json)


def _layer(sections: Data) -> Data:
    """What was given on the command line, without what was not."""
    given = {name: {k: v for k, v in section.items() if v is not None} for name, section in sections.items()}
    return {name: section for name, section in given.items() if section}


def _resolve(user: Data, recipe: str | None) -> Spec:
    from ..resolve import resolve

    return resolve(user, recipe)


def _open(spec: Spec) -> Surroundings:
    from ..build import open_surroundings

    around = open_surroundings(spec)
    for line in around.notes:
        output.note(line)
    for line in warnings(around.spec, len(around.train)):
        output.warn(line)
    return around


def _train(spec: Spec, resume: bool | None, as_json: bool) -> None:
    output.note(f"{spec.method.name} · {spec.backbone.arch} · {spec.data.path}")
    around = _open(spec)

    from ..build import build
    from ..engine import train
    from ..run import Run, default_directory, fresh_directory
    from ..stop import StopRequest

    directory = Path(around.spec.run.out) if around.spec.run.out else default_directory(around.spec)
    if resume is False:
        directory = fresh_directory(directory)
    training = build(around)
    with Run(directory) as run, StopRequest(spec.run.max_time, output.warn) as stop:
        if resume and not any(run.checkpoints.glob("*.safetensors")):
            raise CheckpointError(f"--resume: {directory} holds no checkpoint", "leave --resume out to begin")
        run.claim(around.spec)
        output.note(f"{len(around.train)} images, {training.total} steps of {spec.run.batch_size}, into {directory}")
        if training.probe is not None:
            output.note(f"probe every {training.probe_every} steps on {around.spec.run.probe_data}; best: {run.best}")
        with Progress(training.total, training.per_epoch) as progress:
            meta = train(training, run, stop, progress.report)
        last = run.last_line()
    result = {
        "run": str(directory),
        "checkpoint": str(run.last),
        "steps": int(meta["step"]),
        "loss": last.get("loss"),
        "images_per_second": last.get("images_per_second"),
        "health": last.get("health"),
    }
    if training.probe is not None:
        result |= {"probe": {k: v for k, v in last.items() if k.startswith("probe_")}, "best": str(run.best)}
    output.emit(result, as_json, str(directory))


def _dry_run(spec: Spec, as_json: bool) -> None:
    around = _open(spec)

    from ..build import build
    from ..estimate import estimate

    training = build(around)
    size = estimate(training)
    derived = derivation(around.spec, len(around.train))
    result = {"spec": around.spec.dump(), "images": len(around.train), "steps": training.total, **size}
    result |= {"derivation": derived, "warnings": warnings(around.spec, len(around.train))}
    text = around.spec.to_yaml() + "\n".join(
        [
            f"# images       {len(around.train)}",
            f"# steps        {training.total} ({training.per_epoch} to an epoch)",
            f"# parameters   {size['parameters']:,} ({size['backbone_parameters']:,} in the backbone)",
            f"# memory       about {size['memory_bytes'] / 2**30:.1f} GiB on {training.device}",
            *(f"# {line}" for line in derived),
        ]
    )
    output.emit(result, as_json, text)


def _preview(spec: Spec, path: Path, as_json: bool) -> None:
    around = _open(spec)

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
