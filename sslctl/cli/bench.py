"""``sslctl bench``: where the time of a run would go, and what would help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..spec import Spec
from . import output
from .options import Json
from .spec_options import open_with_notes, takes_spec

if TYPE_CHECKING:
    from ..bench import Bench
    from ..estimate import Size


@takes_spec
def bench(
    spec: Spec,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Times that each part is measured.")] = 7,
    as_json: Json = False,
) -> None:
    """Measure a run before it begins: loading, augmentation, the step beside the bare encoder, memory.

    Takes the options of pretrain, trains for some steps on noise, and writes nothing.

    Examples:

      sslctl bench --data photos/ --method dino --arch vit_small_patch16_224

      sslctl bench --spec runs/swav-resnet18-demo-1a2b3c/spec.yaml --set run.threads=1
    """
    around = open_with_notes(spec)

    from ..bench import bench as measure
    from ..build import build
    from ..estimate import estimate

    training = build(around)
    size = estimate(training)
    output.note(f"{spec.method.name} · {spec.backbone.arch} · batch {spec.run.batch_size} · {training.device}")
    found = measure(training, rounds)
    output.emit(found.as_dict() | {"device": str(training.device)} | size.as_dict(), as_json, _text(found, size))


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
        f"device    {b.share_of_peak:.0%} of the {b.peak_flops / 1e12:.3g} TFLOP/s of a product in {b.precision}",
        f"memory    {b.memory / 2**30:.2f} GiB at most{fits}",
        f"run       {b.rate:.4g} images/s",
        b.verdict()[1],
    ]
    return "\n".join(lines)
