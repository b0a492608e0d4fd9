"""``sslctl bench``: where the time of a run would go, and what would help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..spec.schema import Spec
from . import output
from .options import Json
from .spec_options import open_with_notes, takes_spec

if TYPE_CHECKING:
    from ..engine.setup import RunInputs
    from ..profiling.batch_finder import Found
    from ..profiling.breakdown import Bench
    from ..profiling.estimate import Size


@takes_spec
def bench(
    spec: Spec,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Times that each part is measured.")] = 7,
    batches: Annotated[
        bool, typer.Option("--find-batch", help="Find the largest batch that fits, and from where on more pays little.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure a run before it begins: loading, augmentation, the step beside the bare encoder, memory.

    Takes the options of pretrain, trains for some steps on noise, and writes nothing. With --find-batch it takes real
    steps of growing batches instead.

    Examples:

      sslctl bench --data photos/ --method dino --arch vit_small_patch16_224

      sslctl bench --spec runs/swav-resnet18-demo-1a2b3c/spec.yaml --set run.threads=1

      sslctl bench --data photos/ --method simclr --recipe resnet50 --find-batch
    """
    around = open_with_notes(spec)
    if batches:
        _find_batch(around, as_json)
    else:
        _measure(around, rounds, as_json)


def _measure(around: RunInputs, rounds: int, as_json: bool) -> None:

    from ..engine.setup import build
    from ..profiling.breakdown import bench as measure
    from ..profiling.estimate import estimate

    training = build(around)
    size = estimate(training)
    spec = around.spec
    output.note(f"{spec.method.name} · {spec.backbone.arch} · batch {spec.run.batch_size} · {training.device}")
    found = measure(training, rounds)
    output.emit(found.as_dict() | {"device": str(training.device)} | size.as_dict(), as_json, _text(found, size))


def _find_batch(around: RunInputs, as_json: bool) -> None:
    from ..profiling.batch_finder import find_batch

    spec = around.spec
    output.note(f"{spec.method.name} · {spec.backbone.arch} · trying batches until one does not fit")
    found = find_batch(around, tell=lambda trial: output.note(f"{trial.batch} images fit, {trial.rate:.4g} images/s"))
    accumulate = found.accumulate(spec)
    output.emit(found.as_dict() | {"accumulate": accumulate}, as_json, _table(found, spec, accumulate))


def _table(found: Found, spec: Spec, accumulate: int | None) -> str:
    """One line a batch, then what follows from them."""
    lines = [f"{'batch':>7}  {'images/s':>9}  {'ms a step':>9}  {'GiB':>6}"]
    for trial in found.trials:
        seconds, memory = 1000 * trial.seconds, trial.memory / 2**30
        lines.append(f"{trial.batch:7}  {trial.rate:9.4g}  {seconds:9.4g}  {memory:6.2f}")
    lines.append(f"none larger was tried: {found.reason}")
    if found.largest is None:
        remedy = "smaller views (--multi-crop) or --arch" if found.ended == "memory" else "more images (--data)"
        return "\n".join([*lines, f"no batch could be tried: {remedy}"])
    steady = "" if found.enough == found.largest else f"; from {found.enough} on, more pays little"
    lines.append(f"--batch-size {found.largest} is the largest that was tried{steady}")
    if accumulate is not None:
        whole = f"--batch-size {spec.run.batch_size} --set optim.accumulate={accumulate}"
        lines.append(f"{whole} keeps the batch of the spec, in passes of {spec.run.batch_size // accumulate} images")
    return "\n".join(lines)


def _text(b: Bench, size: Size) -> str:
    """One line a part, then the sentence."""

    def ms(seconds: float, of: int = 1) -> str:
        return f"{1000 * seconds / of:.3g} ms"

    def share(seconds: float) -> str:
        return f"{ms(seconds)} ({seconds / b.step:.0%})"

    if b.decode or b.crop:
        loader = f"decode {ms(b.decode, b.images)} + crop {ms(b.crop, b.images)} an image on one core; "
        loader += f"{b.workers} worker{'s' * (b.workers != 1)}: {b.loader_rate:.0f} images/s"
    else:
        loader = "none: the set is in memory"
    parts = f"encoder {share(b.encoder)}, heads and loss {share(b.objective)}, update {share(b.update)}"
    fits = "" if size.largest_batch is None else f"; about {size.largest_batch} images fit into one forward pass"
    lines = [
        f"loader    {loader}",
        f"augment   {ms(b.augment)} a batch, on the device",
        f"step      {ms(b.step)}, {b.ratio:.2f} times the bare encoder: {parts}",
        *([f"compiled  in the first steps, {b.start:.3g} s"] if b.start else []),
        f"device    {b.share_of_peak:.0%} of the {b.peak_flops / 1e12:.3g} TFLOP/s of a product in {b.precision}",
        f"memory    {b.memory / 2**30:.2f} GiB at most{fits}",
        f"run       {b.rate:.4g} images/s",
        b.verdict()[1],
    ]
    return "\n".join(lines)
