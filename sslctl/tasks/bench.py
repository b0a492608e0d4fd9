"""Where the time of a run would go, and which batch fits into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Unpack

from .feedback import Feedback, Notes
from .options import Option, task
from .specs import SpecOptions, make_spec, open_spec, warn_of

if TYPE_CHECKING:
    from .results import BatchSearch, Bench

Rounds = Annotated[int, Option("Times that each part is measured.", min=1)]


@task
def bench(*, rounds: Rounds = 7, notes: Notes | None = None, **options: Unpack[SpecOptions]) -> Bench:
    """Measure a run before it begins: loading, augmentation, the step next to the bare encoder, memory.

    Trains for some steps on noise, and writes nothing. Raises as ``pretrain``.
    """
    spec, feedback = make_spec(**options), Feedback(None, notes)

    from ..engine.setup import build
    from ..profiling.breakdown import bench as measure
    from ..profiling.estimate import estimate
    from .results import Bench

    opened = open_spec(spec, feedback)
    warn_of(opened, feedback)
    training = build(opened)
    size = estimate(training)
    feedback.note(f"{spec.method.name} · {spec.backbone.arch} · batch {spec.run.batch_size} · {training.device}")
    return Bench(**measure(training, rounds).as_dict(), device=str(training.device), **size.as_dict())


@task
def find_batch(*, notes: Notes | None = None, **options: Unpack[SpecOptions]) -> BatchSearch:
    """Take real steps of growing batches until one does not fit. Raises as ``pretrain``."""
    spec, feedback = make_spec(**options), Feedback(None, notes)

    from ..profiling import batch_finder
    from .results import BatchSearch

    opened = open_spec(spec, feedback)
    warn_of(opened, feedback)
    feedback.note(f"{spec.method.name} · {spec.backbone.arch} · trying batches until one does not fit")
    found = batch_finder.find_batch(
        opened, report=lambda trial: feedback.note(f"{trial.batch} images fit, {trial.rate:.4g} images/s")
    )
    return BatchSearch(batch_size=spec.run.batch_size, **found.as_dict(), accumulate=found.accumulate(opened.spec))
