"""How a spec fits the data and the length of the run: what follows from its numbers, and what is known to fail."""

from __future__ import annotations

from typing import Any

from ..spec.crops import parse_crops
from ..spec.derived import describe_lr, total_steps
from ..spec.parsing import check
from ..spec.schema import Spec
from . import load_method
from .base import Chance, Context, Method, Params


def derivation(spec: Spec, images: int) -> list[str]:
    """Return what follows from ``spec`` for so many ``images``: the learning rate, and what the method says."""
    method, params, context = _known(spec, images)
    return [describe_lr(spec.optim, spec.run.batch_size), *method.derived(params, context)]


def warnings(spec: Spec, images: int) -> list[str]:
    """Return the combinations in ``spec`` that are known to fail on so many ``images``, each with what to do."""
    method, params, context = _known(spec, images)
    lines, warmup = method.advice(params, context, spec), spec.optim.warmup_epochs
    if warmup >= context.epochs:
        lines.append(
            f"optim.warmup_epochs {warmup:g}: the learning rate is still rising when the run of {context.epochs:.2g} "
            f"epochs ends; for example --set optim.warmup_epochs={context.epochs / 10:.2g}"
        )
    return lines


def chance(spec: Spec, images: int, classes: int = 0) -> Chance:
    """Return the loss of ``spec``'s method where nothing is learned, on so many ``images`` (0 where unknown)."""
    method, params, context = _known(spec, images, classes)
    return method.chance(params, context)


def _known(spec: Spec, images: int, classes: int = 0) -> tuple[type[Method[Any]], Params, Context]:
    method = load_method(spec.method.name)
    params = check(method.Params, spec.method_params(), "method")
    assert isinstance(params, Params)
    plan = parse_crops(spec.views.multi_crop or method.views.crops)
    total = total_steps(spec.run, images)
    local = plan.locals.count if plan.locals else 0
    return method, params, Context(images, spec.run.batch_size, classes, plan.globals.count, local, total)
