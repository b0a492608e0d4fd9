"""Pretraining: an encoder learned from images without labels; the plan of a run, and a picture of its views."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from ..errors import CheckpointError, SpecError
from ..runs.sinks import require
from ..spec.parsing import check_spec, read_spec_file
from .feedback import Feedback, Notes
from .options import Option, task
from .specs import AUTO, SpecOptions, make_spec, open_spec, warn_of

if TYPE_CHECKING:
    from ..engine.setup import RunInputs
    from .results import Plan, PretrainedRun, Preview

Callback = Callable[[dict[str, Any]], None]
Resume = Annotated[
    bool | None,
    Option(
        "Require a checkpoint to go on from, or start in a new directory; by default go on where there is one.",
        names="--resume/--fresh",
    ),
]


@task
def pretrain(
    *,
    resume: Resume = None,
    callback: Callback | None = None,
    notes: Notes | None = None,
    **options: Unpack[SpecOptions],
) -> PretrainedRun:
    """Learn an encoder from images without labels; ``result.run`` is the run directory.

    The same call into the same directory goes on where it was interrupted. ``callback`` gets every metric line: a
    dictionary with ``step``, ``total``, ``loss``, ``lr``, ``health``, … Raises SpecError with every error of the spec
    at once, DataError for images that cannot be used, DivergedError where the loss is not finite, Stopped where a
    signal or ``max_time`` ended the run early, saved.
    """
    spec = make_spec(**options)
    feedback = Feedback(None, notes)
    feedback.note(f"{spec.method.name} · {spec.backbone.arch} · {spec.data.path}")
    require(spec.run.log_to)

    from ..engine.loop import train
    from ..engine.setup import build
    from ..profiling.estimate import estimate
    from ..runs.directory import ReadOnlyRun, Run, default_directory, fresh_directory
    from ..runtime import distributed
    from ..runtime.device import choose_device
    from ..runtime.stop import StopRequest
    from .results import PretrainedRun
    from .session import Session

    distributed.join(choose_device(spec.run.device))
    opened = open_spec(spec, feedback)
    if options.get("batch_size") == AUTO:
        opened = _with_batch_that_fits(opened, resume, feedback)
    warn_of(opened, feedback)
    directory = Path(opened.spec.run.out) if opened.spec.run.out else default_directory(opened.spec)
    if resume is False:
        directory = distributed.by_first(lambda: fresh_directory(directory))
    training = build(opened)
    size = estimate(training)
    feedback.note(f"memory: {size}")
    if not size.fits:
        feedback.warn(_memory_advice(size.accumulate))
    entered = Run(directory) if distributed.rank() == 0 else ReadOnlyRun(directory)
    with entered as run, StopRequest(spec.run.max_time, feedback.warn) as stop:
        if resume and not any(run.checkpoints.glob("*.safetensors")):
            raise CheckpointError(f"--resume: {directory} holds no checkpoint", "leave --resume out to begin")
        run.claim(opened.spec)
        batch = opened.spec.run.batch_size
        feedback.note(f"{len(opened.train)} images, {training.total} steps of {batch}, into {directory}")
        if training.probe is not None:
            every, data = training.probe_every, opened.spec.run.probe_data
            feedback.note(f"probe every {every} steps on {data}; best: {run.best}")
        if training.compiled:
            feedback.note(
                "networks are compiled: the first steps take a minute or two, less when torch has it in its cache"
            )
        with Session(training, run, feedback, callback) as session:
            meta = train(training, run, stop, session.report)
        last, rates = run.last_line(), _rates(run.lines())
    result = PretrainedRun(
        run=str(directory),
        checkpoint=str(run.last),
        steps=meta.step,
        loss=last.get("loss"),
        health=last.get("health"),
        **rates,
        **({} if training.probe is None else _probed(last, run.best)),
    )
    feedback.note(f"{_rates_in_words(result)}; more: sslctl bench --spec {run.spec_file}")
    return result


@task
def plan(*, resume: Resume = None, notes: Notes | None = None, **options: Unpack[SpecOptions]) -> Plan:
    """Resolve the spec, and say what a run of it would be: steps, size, memory. Writes nothing; raises as ``pretrain``.

    ``resume``: that of the run, on which ``batch_size="auto"`` depends.
    """
    spec, feedback = make_spec(**options), Feedback(None, notes)

    from ..engine.setup import build
    from ..methods.advice import derivation
    from ..profiling.estimate import estimate
    from .results import Plan

    opened = open_spec(spec, feedback)
    if options.get("batch_size") == AUTO:
        opened = _with_batch_that_fits(opened, resume, feedback)
    found = warn_of(opened, feedback)
    training = build(opened)
    size = estimate(training)
    return Plan(
        spec=opened.spec.dump(),
        images=len(opened.train),
        steps=training.total,
        steps_per_epoch=training.per_epoch,
        memory=str(size),
        **size.as_dict(),
        derivation=derivation(opened.spec, len(opened.train)),
        warnings=found,
    )


@task
def preview(
    path: Annotated[Path, Option("Write a PNG of the views of some images, and stop.")],
    *,
    notes: Notes | None = None,
    **options: Unpack[SpecOptions],
) -> Preview:
    """Draw the views of some images into the PNG ``path``. Raises as ``pretrain``."""
    spec, feedback = make_spec(**options), Feedback(None, notes)

    from ..files import write_atomically
    from ..views.augment import Augment
    from ..views.preview import contact_sheet
    from .results import Preview

    opened = open_spec(spec, feedback)
    warn_of(opened, feedback)
    count = min(8, len(opened.train))
    images = [opened.train.read(i) for i in range(count)]
    names = [opened.train.item_name(i) for i in range(count)]
    buffer = io.BytesIO()
    contact_sheet(images, Augment(opened.plan, spec.run.seed), names).save(buffer, "PNG")
    write_atomically(Path(path), buffer.getvalue())
    return Preview(preview=str(path), images=count, views=len(opened.plan.all))


def _with_batch_that_fits(opened: RunInputs, resume: bool | None, feedback: Feedback) -> RunInputs:
    """Return the same with the batch size of the run that is in ``--out`` already, or with one that fits."""
    from ..profiling.batch_finder import batch_that_fits, with_run

    spec = opened.spec
    if spec.run.out is None:
        raise SpecError("--batch-size auto: without --out the same command could not go on", "add --out runs/NAME")
    earlier = Path(spec.run.out) / "spec.yaml"
    if resume is not False and earlier.exists():
        batch = check_spec(read_spec_file(earlier)).run.batch_size
        feedback.note(f"--batch-size auto: {batch}, as in {earlier}")
        return with_run(opened, batch_size=batch)
    feedback.note(f"--batch-size auto: trying {spec.run.batch_size} or what fits")
    batch, found = batch_that_fits(opened, lambda trial: feedback.detail(f"{trial.batch} images fit"))
    parts = found.accumulate(spec)
    other = f"; --set optim.accumulate={parts} would keep {spec.run.batch_size}" if parts else ""
    feedback.note(f"--batch-size auto: {batch}{other}")
    return with_run(opened, batch_size=batch)


def _memory_advice(accumulate: int | None) -> str:
    if accumulate:
        whole = f"--set optim.accumulate={accumulate} keeps the batch, in {accumulate} passes"
        return f"this may not fit into memory: {whole}; or a smaller --batch-size (sslctl bench --find-batch)"
    return "this may not fit into memory, whatever the batch: smaller views (--multi-crop) or --arch"


def _probed(last: dict[str, Any], best: Path) -> dict[str, Any]:
    return {"probe": {k: v for k, v in last.items() if k.startswith("probe_")}, "best": str(best)}


def _rates(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Return the fields of ``results.Rates``."""
    found = {}
    for key in ("images_per_second", "data_wait", "augment", "memory_gib"):
        values = [line[key] for line in lines if key in line]
        if values:
            found[key] = max(values) if key == "memory_gib" else median(values)
    return found


def _rates_in_words(r: PretrainedRun) -> str:
    waiting, augment = r.data_wait or 0.0, r.augment or 0.0
    return (
        f"{r.images_per_second or 0.0:.0f} images/s · waiting for data {waiting:.1%} · augmentation {augment:.1%} · "
        f"step {max(0.0, 1 - waiting - augment):.1%} · {r.memory_gib or 0.0:.2f} GiB at most"
    )
