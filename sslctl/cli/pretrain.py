"""``sslctl pretrain``: learn an encoder from images without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Unpack

from ..spec.parsing import check_spec
from ..tasks import pretrain as tasks
from ..tasks.feedback import Notes
from ..tasks.options import Option
from ..tasks.specs import SpecOptions

if TYPE_CHECKING:
    from ..tasks.results import Plan, PretrainedRun, Preview


def run(
    *,
    resume: tasks.Resume = None,
    dry_run: Annotated[bool, Option("Show what would run, and write nothing.")] = False,
    preview: Annotated[Path | None, Option("Write a PNG of the views of some images, and stop.")] = None,
    callback: tasks.Callback | None = None,
    notes: Notes | None = None,
    **options: Unpack[SpecOptions],
) -> PretrainedRun | Plan | Preview:
    """Train, or only plan, or only draw the views."""
    if preview is not None:
        return tasks.preview(preview, notes=notes, **options)
    if dry_run:
        return tasks.plan(resume=resume, notes=notes, **options)
    return tasks.pretrain(resume=resume, callback=callback, notes=notes, **options)


def pretrain(result: PretrainedRun | Plan | Preview) -> str:
    """Learn an encoder from unlabelled images.

    Prints the run directory. The same command into the same directory goes on where it was interrupted.

    Examples:

      sslctl pretrain --data demo --method byol --recipe small

      sslctl pretrain --data photos/ --method swav --multi-crop 2x160+4x96

      sslctl pretrain --data photos/ --method dino --probe-data labelled/ --probe-every 500

      sslctl pretrain --data photos/ --method simclr --recipe resnet50 --batch-size auto --out runs/photos

      sslctl pretrain --spec runs/swav-resnet18-demo-1a2b3c/spec.yaml --set optim.lr=0.3 --out runs/lower
    """
    from ..tasks.results import Plan, Preview

    if isinstance(result, Plan):
        return _plan(result)
    return result.preview if isinstance(result, Preview) else result.run


def _plan(plan: Plan) -> str:
    lines = [
        f"# images       {plan.images}",
        f"# steps        {plan.steps} ({plan.steps_per_epoch} to an epoch)",
        f"# parameters   {plan.parameters:,} ({plan.backbone_parameters:,} in the backbone)",
        f"# memory       {plan.memory}",
        *(f"# {line}" for line in plan.derivation),
    ]
    return check_spec(plan.spec).to_yaml() + "\n".join(lines)
