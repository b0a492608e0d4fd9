"""NNCLR against an independent computation in float64 (there is no official code); its pairs and its support set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslctl.layers.losses import info_nce, mean_of_others
from sslctl.layers.precision import unit
from sslctl.methods.base import Context, Views
from sslctl.methods.nnclr import NNCLR, NNCLRParams
from sslctl.schedule import Step

from .compare import same

SMALL = NNCLRParams(hidden=8, out=5, predictor_hidden=6, queue=20)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_and_gradient_are_the_reference(
    golden: Callable[[str], dict[str, Tensor]], net: Callable[[], Any], dtype: torch.dtype
) -> None:
    case = {k: v.to(dtype) for k, v in golden("nnclr_reference").items()}
    method = NNCLR(NNCLRParams(hidden=8, out=8, queue=12), net(), Context(100, 5))
    method.queue.keys = unit(case["support_set"])
    nearest = method.neighbours(unit(torch.stack([case["z1"], case["z2"]])))
    same(nearest, unit(torch.stack([case["nn1"], case["nn2"]])))
    p = torch.stack([case["p1"], case["p2"]]).requires_grad_()
    pairs = info_nce(unit(p), nearest, 0.1)
    same(pairs[1, 0], case["loss_12"])
    same(pairs[0, 1], case["loss_21"])
    loss = mean_of_others(pairs.T)
    same(loss, case["loss"])
    (gradient,) = torch.autograd.grad(loss, p)
    same(gradient[0], case["grad_p1"])
    same(gradient[1], case["grad_p2"])


@pytest.mark.parametrize(("globals", "locals"), [(2, 0), (2, 2), (1, 2), (3, 1)])
def test_pairs_are_neighbours_of_global_views_with_all_other_predictions(
    net: Callable[[], Any], random_views: Callable[..., Views], globals: int, locals: int
) -> None:
    method = NNCLR(SMALL, net(), Context(100, 6)).double()
    views = random_views((globals, 16), (locals, 8))
    views = Views([x.double() for x in views.globals], [x.double() for x in views.locals], views.index)
    support = method.queue.keys.clone()
    z = [method.student(x) for x in views.all]
    p = [unit(method.predictor(x)) for x in z]
    own = torch.arange(6)
    losses = []
    for t in range(globals):
        neighbour = support[(unit(z[t]) @ support.T).argmax(1)]
        losses += [F.cross_entropy(neighbour @ p[v].T / 0.1, own) for v in range(len(p)) if v != t]
    torch.testing.assert_close(method(views, Step(0, 4, 2)).loss, torch.stack(losses).mean(), rtol=1e-9, atol=0)
    torch.testing.assert_close(method.queue.keys[:6], unit(z[0]).detach())
    assert torch.equal(method.queue.keys[6:], support[6:])
