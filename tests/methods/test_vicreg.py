"""VICReg: loss and gradient of the authors, terms written out over pairs, head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslctl.methods.base import Context, Views
from sslctl.methods.vicreg import VICReg, VICRegParams, variance_covariance
from sslctl.schedule import Step

from ..stubs import Flat
from .compare import same

PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


Golden = Callable[[str], dict[str, Tensor]]


class Embeddings(Flat):
    """A backbone whose input is the embedding too: the authors' golden network."""

    dim = 10


def vicreg() -> VICReg:
    method = VICReg(VICRegParams(out=10), Embeddings(), Context(100, 8))  # type: ignore[arg-type]
    method.student.head = nn.Identity()
    return method


@PRECISIONS
def test_vicreg_is_the_authors(golden: Golden, dtype: torch.dtype) -> None:
    case = {k: v.to(dtype) for k, v in golden("vicreg_loss").items()}
    x, y = case["x"].requires_grad_(), case["y"].requires_grad_()
    output = vicreg()(Views([x, y], [], torch.arange(8)), Step(0, 4, 2))
    same(output.loss, case["loss"])
    same(output.logs["invariance"], case["invariance"])
    same(output.logs["variance"], case["variance"])
    same(2 * output.logs["covariance"], case["covariance"])
    for gradient, name in zip(torch.autograd.grad(output.loss, [x, y]), ("grad_x", "grad_y"), strict=True):
        same(gradient, case[name])


def doubled(views: Views) -> Views:
    return Views([x.double() for x in views.globals], [x.double() for x in views.locals], views.index)


@pytest.mark.parametrize(("globals", "locals"), [(2, 0), (2, 2), (1, 2), (3, 1)])
def test_vicreg_takes_a_global_view_and_another_each_once(
    net: Callable[[], Any], random_views: Callable[..., Views], globals: int, locals: int
) -> None:
    views = doubled(random_views((globals, 16), (locals, 8)))
    n = globals + locals
    pairs = [(a, b) for a in range(globals) for b in range(n) if a < b]
    method = VICReg(VICRegParams(out=9, invariance=3.0, variance=5.0, covariance=7.0), net(), Context(100, 6)).double()
    z = [method.student(x) for x in views.all]
    invariance = torch.stack([F.mse_loss(z[a], z[b]) for a, b in pairs]).mean()
    variance = torch.stack([F.relu(1 - (x.var(0) + 1e-4).sqrt()).mean() for x in z]).mean()
    off = [torch.cov(x.T) - torch.cov(x.T).diagonal().diag() for x in z]
    covariance = torch.stack([c.square().sum() / 9 for c in off]).mean()
    expected = 3 * invariance + 5 * variance + 2 * 7 * covariance
    torch.testing.assert_close(method(views, Step(0, 4, 2)).loss, expected, rtol=1e-9, atol=0)


def test_a_collapsed_embedding_pays_all_of_the_variance() -> None:
    variance, covariance = variance_covariance(torch.ones(8, 5))
    assert float(variance) == pytest.approx(0.99) and float(covariance) == 0


def test_the_head_of_vicreg_is_the_authors(net: Callable[[], Any]) -> None:
    head = VICReg(VICRegParams(out=9), net(), Context(100, 6)).student.head
    assert [type(layer).__name__ for layer in head] == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert [head[i].bias is not None for i in (0, 3, 6)] == [True, True, False]
