"""BYOL against the authors' loss, gradient and schedule of its teacher; its pairs, heads and ablations.

Golden: deepmind-research/byol, utils/helpers.py and utils/schedules.py, under JAX in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslctl.backbones import build_backbone
from sslctl.layers.losses import mean_cosines, mean_of_others
from sslctl.layers.precision import unit
from sslctl.layers.teacher import EMA
from sslctl.methods.base import Context, Views
from sslctl.methods.byol import BYOL, BYOLParams, Standardized
from sslctl.schedule import Step, constant, cosine
from sslctl.spec.schema import BackboneSpec, OptimSpec

from .compare import same

SMALL = {"hidden": 16, "out": 6}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_and_gradient_are_the_authors(golden: Callable[[str], dict[str, Tensor]], dtype: torch.dtype) -> None:
    case = {k: v.to(dtype) for k, v in golden("byol").items()}
    p = torch.stack([case["p1"], case["p2"]]).requires_grad_()
    z = torch.stack([case["z1"], case["z2"]])
    loss = 2 * mean_of_others(2 - 2 * mean_cosines(z, p))
    same(loss, case["loss"])
    (gradient,) = torch.autograd.grad(loss, p)
    same(gradient[0], case["grad_p1"])
    same(gradient[1], case["grad_p2"])


def test_the_teachers_momentum_is_the_authors(golden: Callable[[str], dict[str, Tensor]]) -> None:
    schedule = BYOLParams().momentum
    values = [schedule.at(Step(i, 20, 5)) for i in range(21)]
    torch.testing.assert_close(torch.tensor(values, dtype=torch.float64), golden("byol")["tau"], rtol=1e-7, atol=0)


def views_of(random_views: Callable[..., Views], globals: int, locals: int) -> Views:
    views = random_views((globals, 16), (locals, 8))
    return Views([x.double() for x in views.globals], [x.double() for x in views.locals], views.index)


@pytest.mark.parametrize(("globals", "locals"), [(2, 0), (2, 3), (1, 2), (3, 1)])
def test_pairs_are_all_views_with_all_other_global_ones(
    net: Callable[[], Any], random_views: Callable[..., Views], globals: int, locals: int
) -> None:
    method = BYOL(BYOLParams(**SMALL), net(), Context(100, 6)).double()  # type: ignore[arg-type]
    views = views_of(random_views, globals, locals)
    p = [unit(method.predictor(method.student(x))) for x in views.all]  # every view with statistics of its own
    z = [unit(method.teacher(x)) for x in views.globals]
    pairs = [(p[v] - z[t]).square().sum(1).mean() for t in range(globals) for v in range(len(p)) if v != t]
    expected = 2 * torch.stack(pairs).mean()
    torch.testing.assert_close(method(views, Step(0, 4, 2)).loss, expected, rtol=1e-9, atol=0)


def shape_of(head: Any) -> list[str]:
    return [type(layer).__name__ for layer in head]


def test_heads_are_the_authors(net: Callable[[], Any]) -> None:
    backbone = net()
    backbone.dim = 400
    method = BYOL(BYOLParams(hidden=300, out=200), backbone, Context(100, 6))
    for head, width in ((method.student.head, 400), (method.predictor, 200)):
        assert shape_of(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
        first, last = head[0], head[3]  # type: ignore[index]
        assert (first.in_features, first.out_features, last.out_features) == (width, 300, 200)
        assert first.bias is not None and not first.bias.any() and last.bias is None
        for layer in (first, last):
            limit = 2 / layer.in_features**0.5
            weight = layer.weight.detach()
            assert float(weight.abs().max()) <= limit
            assert abs(float(weight.std()) / (0.44 * limit) - 1) < 0.03, "a normal cut at two deviations"


def test_without_batch_statistics_an_image_does_not_see_its_neighbours() -> None:
    """A group-normed, weight-standardized net and heads: an embedding is the same in any batch (arXiv 2010.10241)."""
    arch = BackboneSpec(arch="resnetv2_50x1_bit", args={"channels": [128, 128, 128, 128], "stem_chs": 32})
    torch.manual_seed(0)
    backbone = build_backbone(arch, 64)
    method = BYOL(BYOLParams(head_norm="group", **SMALL), backbone, Context(100, 6)).train()  # type: ignore[arg-type]
    assert not [m for m in method.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    x = torch.randn(4, 3, 64, 64)
    whole, alone = (method.predictor(method.student(images)) for images in (x, x[:1]))
    torch.testing.assert_close(whole[:1], alone, rtol=1e-3, atol=1e-4)
    names = {name for name, _ in method.named_parameters()}
    assert {"student.head.0.weight", "student.head.0.bias", "student.head.3.weight"} <= names


def test_standardized_weights_have_mean_0_and_variance_1_over_fan_in() -> None:
    linear = nn.Linear(50, 3).double()
    nn.init.uniform_(linear.weight, 1.0, 9.0)
    layer = Standardized(linear)
    used = layer(torch.eye(50, dtype=torch.float64)).T - linear.bias[:, None]
    torch.testing.assert_close(used.mean(1), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(used.square().sum(1), torch.ones(3, dtype=torch.float64), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("momentum", "moves", "equals"), [(1.0, False, False), (0.0, True, True), (0.5, True, False)])
def test_a_teacher_that_stays_and_one_that_is_the_student(
    net: Callable[[], Any],
    random_views: Callable[..., Views],
    trainer: Callable[..., Any],
    momentum: float,
    moves: bool,
    equals: bool,
) -> None:
    method = BYOL(BYOLParams(momentum=constant(momentum), predictor=False, **SMALL), net(), Context(100, 6))  # type: ignore[arg-type]
    assert isinstance(method.predictor, nn.Identity) and isinstance(method.teacher, EMA)
    before = method.teacher.net.head[0].weight.clone()
    trainer(method, OptimSpec(name="sgd"), constant(0.1)).step(random_views((2, 16)), Step(0, 4, 2))
    teacher, student = method.teacher.net.head[0].weight, method.student.head[0].weight
    assert torch.equal(teacher, before) != moves and torch.equal(teacher, student) == equals


def test_momentum_comes_from_the_step(net: Callable[[], Any]) -> None:
    method = BYOL(BYOLParams(momentum=cosine(0.5, 1.0), **SMALL), net(), Context(100, 6))  # type: ignore[arg-type]
    start = method.teacher.net.head[0].weight.clone()
    with torch.no_grad():
        method.student.head[0].weight.add_(1.0)
    method.after_step(Step(5, 10, 5))  # half-way: 0.75
    torch.testing.assert_close(method.teacher.net.head[0].weight, start + 0.25)
