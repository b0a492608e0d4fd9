"""``sslctl bench``: where the time of a run would go, and what would help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Unpack

from ..tasks import bench as tasks
from ..tasks.feedback import Notes
from ..tasks.options import Option
from ..tasks.specs import SpecOptions
from . import output

if TYPE_CHECKING:
    from ..tasks.results import BatchSearch, Bench


def run(
    *,
    rounds: tasks.Rounds = 7,
    find_batch: Annotated[
        bool, Option("Find the largest batch that fits, and from where on more pays little.")
    ] = False,
    notes: Notes | None = None,
    **options: Unpack[SpecOptions],
) -> Bench | BatchSearch:
    """Measure the run, or find the batch that fits."""
    return (
        tasks.find_batch(notes=notes, **options) if find_batch else tasks.bench(rounds=rounds, notes=notes, **options)
    )


def bench(result: Bench | BatchSearch) -> str:
    """Measure a run before it begins: loading, augmentation, the step beside the bare encoder, memory.

    Takes the options of pretrain, trains for some steps on noise, and writes nothing. With --find-batch it takes real
    steps of growing batches instead.

    Examples:

      sslctl bench --data photos/ --method dino --arch vit_small_patch16_224

      sslctl bench --spec runs/swav-resnet18-demo-1a2b3c/spec.yaml --set run.threads=1

      sslctl bench --data photos/ --method simclr --recipe resnet50 --find-batch
    """
    from ..tasks.results import Bench

    return _parts(result) if isinstance(result, Bench) else _batches(result)


def _batches(found: BatchSearch) -> str:
    """One line a batch, then what follows from them."""
    rows = [
        [str(t.batch), f"{t.images_per_second:.4g}", f"{1000 * t.seconds:.4g}", f"{t.memory / 2**30:.2f}"]
        for t in found.trials
    ]
    lines = [output.table(["batch", "images/s", "ms a step", "GiB"], rows, right=range(4))]
    lines.append(f"none larger was tried: {found.reason}")
    largest, accumulate = found.largest_batch_tried, found.accumulate
    if largest is None:
        remedy = "smaller views (--multi-crop) or --arch" if found.ended_by == "memory" else "more images (--data)"
        return "\n".join([*lines, f"no batch could be tried: {remedy}"])
    steady = "" if found.steady_from == largest else f"; from {found.steady_from} on, more pays little"
    lines.append(f"--batch-size {largest} is the largest that was tried{steady}")
    if accumulate is not None:
        whole = f"--batch-size {found.batch_size} --set optim.accumulate={accumulate}"
        lines.append(f"{whole} keeps the batch of the spec, in passes of {found.batch_size // accumulate} images")
    return "\n".join(lines)


def _parts(b: Bench) -> str:
    """One line a part, then the sentence."""

    def ms(seconds: float, of: int = 1) -> str:
        return f"{1000 * seconds / of:.3g} ms"

    def share(seconds: float) -> str:
        return f"{ms(seconds)} ({seconds / b.step:.0%})"

    loader = "none: the set is in memory"
    if b.loader_images_per_second is not None:
        loader = f"decode {ms(b.decode, b.images)} + crop {ms(b.crop, b.images)} an image on one core; "
        loader += f"{b.workers} worker{'s' * (b.workers != 1)}: {b.loader_images_per_second:.0f} images/s"
    parts = f"encoder {share(b.encoder)}, heads and loss {share(b.objective)}, update {share(b.update)}"
    fits = "" if b.largest_batch is None else f"; about {b.largest_batch} images fit into one forward pass"
    lines = [
        f"loader    {loader}",
        f"augment   {ms(b.augment)} a batch, on the device",
        f"step      {ms(b.step)}, {b.ratio:.2f} times the bare encoder: {parts}",
        *([f"compiled  in the first steps, {b.start:.3g} s"] if b.start else []),
        f"device    {b.share_of_peak:.0%} of the {b.peak_flops / 1e12:.3g} TFLOP/s of a product in {b.precision}",
        f"memory    {b.memory / 2**30:.2f} GiB at most{fits}",
        f"run       {b.images_per_second:.4g} images/s",
        b.advice,
    ]
    return "\n".join(lines)
