"""What every method inherits: what it knows of a run, its groups of parameters, and advice by numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from sslctl.errors import SpecError
from sslctl.methods import load_method
from sslctl.methods.base import Context, Method, Params, prototypes
from sslctl.methods.resolve import resolve
from sslctl.schedule import Schedule, constant


class Some(Params):
    queue: int = 0
    prototypes: int | tuple[int, ...] = 0
    momentum: Schedule = constant(0.9)
    freeze_last_layer_epochs: float = 0


def advice(context: Context, **params: Any) -> str:
    spec = resolve({"data": {"path": "x"}, "method": {"name": "simclr"}})
    return "\n".join(Method.advice(Some(**params), context, spec))


def test_a_run_is_as_many_epochs_as_its_steps_make() -> None:
    assert Context(images=100, batch_size=20, total=15).epochs == 3.0


@pytest.mark.parametrize(("globals", "locals", "least", "fits"), [(2, 0, 2, True), (1, 1, 2, True), (1, 0, 2, False)])
def test_views_are_counted_together(globals: int, locals: int, least: int, fits: bool) -> None:
    context = Context(100, 8, globals=globals, locals=locals)
    if fits:
        context.require_views(least)
    else:
        with pytest.raises(SpecError, match=r"views\.multi_crop: 1 view of each image"):
            context.require_views(least)


def test_biases_and_norms_are_neither_decayed_nor_adapted_and_all_are_there_once(net: Callable[[], Any]) -> None:
    cls: Any = load_method("simclr")
    method: Method[Any] = cls(cls.Params(out=8), net(), Context(100, 8))
    weights, rest = method.split_by_axes()
    assert (weights.decay, weights.adapt, rest.decay, rest.adapt) == (True, True, False, False)
    assert all(p.ndim > 1 for _, p in weights.params) and all(p.ndim <= 1 for _, p in rest.params)
    (whole,) = method.one_group()
    assert sorted(name for name, _ in whole.params) == sorted(name for name, _ in weights.params + rest.params)
    next(method.parameters()).requires_grad_(False)
    assert len(method.one_group()[0].params) == len(whole.params) - 1
    assert isinstance(method.encoder(), nn.Module) and method.encoder() is method.student.backbone


def test_a_slow_teacher_is_told_with_a_momentum_that_fits() -> None:
    context = Context(1000, 10, total=100)
    assert "--set method.momentum=0.9\n" not in advice(context) and advice(context) == ""
    slow = advice(context, momentum=constant(0.996))
    assert "averages over 250 steps in a run of 100" in slow and slow.endswith("--set method.momentum=0.9")


def test_queues_prototypes_and_frozen_layers_beyond_the_run_are_told() -> None:
    context = Context(1000, 10, total=200)
    assert "method.queue 2000" in advice(context, queue=2000) and "250 is enough" in advice(context, queue=2000)
    assert "method.prototypes 3000" in advice(context, prototypes=(20, 3000))
    assert "never move in 2 epochs" in advice(context, freeze_last_layer_epochs=2)
    assert advice(context, queue=1000, prototypes=1000, freeze_last_layer_epochs=1) == ""


def test_numbers_of_a_run_are_derived() -> None:
    context = Context(1000, 100, total=50)
    lines = Method.derived(Some(queue=500, prototypes=20, momentum=constant(0.9)), context)
    assert lines == [
        "the teacher averages over about 10 of 50 steps (momentum 0.9)",
        "the queue holds 5 batches, 50% of the images",
        "20 prototypes: 50 images and 5 of a batch to each",
    ]
    assert Method.derived(Params(), context) == [] and prototypes(Some(prototypes=(3, 9, 4))) == 9
