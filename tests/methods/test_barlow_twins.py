"""Barlow Twins: loss and gradient of the authors, pairs written out, learning rates, head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslctl.engine.optimizers import build_optimizer
from sslctl.engine.setup import lr_schedule
from sslctl.methods.barlow_twins import BarlowTwins, BarlowTwinsParams, redundancy, standardize
from sslctl.methods.base import Context, Views
from sslctl.schedule import Step
from sslctl.spec.schema import OptimSpec

from .compare import same

PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


Golden = Callable[[str], dict[str, Tensor]]


@PRECISIONS
def test_barlow_twins_is_the_authors(golden: Golden, dtype: torch.dtype) -> None:
    case = {k: v.to(dtype) for k, v in golden("barlowtwins_loss").items()}
    z1, z2 = case["z1"].requires_grad_(), case["z2"].requires_grad_()
    same(standardize(z1).T @ standardize(z2) / 8, case["cross_correlation"])
    loss = redundancy(z1, z2, BarlowTwinsParams().redundancy)
    same(loss, case["loss"])
    for gradient, name in zip(torch.autograd.grad(loss, [z1, z2]), ("grad_z1", "grad_z2"), strict=True):
        same(gradient, case[name])
    same(redundancy(z1, z2, 0.005), case["loss_lambda0.005"])


def doubled(views: Views) -> Views:
    return Views([x.double() for x in views.globals], [x.double() for x in views.locals], views.index)


@pytest.mark.parametrize(("globals", "locals"), [(2, 0), (2, 2), (1, 2), (3, 1)])
def test_pairs_are_a_global_view_and_another_each_once(
    net: Callable[[], Any], random_views: Callable[..., Views], globals: int, locals: int
) -> None:
    views = doubled(random_views((globals, 16), (locals, 8)))
    n = globals + locals
    pairs = [(a, b) for a in range(globals) for b in range(n) if a < b]

    barlow = BarlowTwins(BarlowTwinsParams(out=9), net(), Context(100, 6)).double()
    z = [barlow.student(x) for x in views.all]
    bn = nn.BatchNorm1d(9, affine=False).double()
    losses = []
    for a, b in pairs:
        c = bn(z[a]).T @ bn(z[b]) / 6
        away = c - torch.eye(9)
        losses.append(sum(away[i, j] ** 2 * (1 if i == j else 0.0051) for i in range(9) for j in range(9)))
    torch.testing.assert_close(barlow(views, Step(0, 4, 2)).loss, torch.stack(losses).mean(), rtol=1e-9, atol=0)


def test_scale_and_shift_of_an_embedding_change_nothing_for_barlow_twins() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(16, 6, generator=g, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(redundancy(x * 30 + 5, y * 20 - 3, 0.1), redundancy(x, y, 0.1), rtol=1e-4, atol=0)


def test_biases_and_norms_have_the_authors_learning_rate(golden: Golden, net: Callable[[], Any]) -> None:
    """The golden schedule's two rates, 0.2 and 0.0048 at batch 2048, through the optimizer's groups."""
    method = BarlowTwins(BarlowTwinsParams(out=9), net(), Context(4096, 2048))
    optim = OptimSpec(**{**BarlowTwins.recipe["optim"], "lr_end": 0.2 * 8 * 0.001})
    weights, rest = build_optimizer(optim, method).param_groups
    assert weights["decay"] and weights["adapt"] and not rest["decay"] and not rest["adapt"]
    assert all(p.ndim == 1 for p in rest["params"]) and all(p.ndim > 1 for p in weights["params"])
    lr = lr_schedule(optim, 2048)
    case = golden("barlowtwins_vicreg_lr")
    for group, name in ((weights, "barlow_weights"), (rest, "barlow_biases")):
        values = [lr.at(Step(i, 42, 3)) * group["lr_scale"] for i in range(42)]
        torch.testing.assert_close(torch.tensor(values, dtype=torch.float64), case[name], rtol=1e-9, atol=1e-12)


def test_the_head_of_barlow_twins_is_the_authors(net: Callable[[], Any]) -> None:
    head = BarlowTwins(BarlowTwinsParams(out=9), net(), Context(100, 6)).student.head
    assert [type(layer).__name__ for layer in head] == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert [head[i].bias is not None for i in (0, 3, 6)] == [False, False, False]
