"""SimCLR's loss and gradient against google-research/simclr, its pairs under multi-crop, and its head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslctl.errors import SpecError
from sslctl.methods.base import Context, Views
from sslctl.methods.simclr import SimCLR, SimCLRParams, nt_xent
from sslctl.schedule import Step


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_loss_and_gradient_are_the_authors(
    golden: Callable[[str], dict[str, Tensor]], temperature: float, dtype: torch.dtype, tolerance: float
) -> None:
    case = {k: v.to(dtype) for k, v in golden("simclr_ntxent").items()}
    hidden = case["hidden"].requires_grad_()
    loss = nt_xent(hidden.unflatten(0, (2, -1)), 2, temperature)
    (gradient,) = torch.autograd.grad(loss, hidden)
    at = f"t{temperature}."
    torch.testing.assert_close(loss, case[at + "loss_official"], rtol=tolerance, atol=0)
    torch.testing.assert_close(loss, 2 * case[at + "loss_paper"], rtol=tolerance, atol=0)
    largest = float(case[at + "grad_official"].abs().max())
    torch.testing.assert_close(gradient, case[at + "grad_official"], rtol=tolerance, atol=tolerance * largest)


def by_hand(z: Tensor, targets: int, temperature: float) -> Tensor:
    """The definition, one anchor after another."""
    z = F.normalize(z, dim=-1)
    losses = []
    for v in range(len(z)):
        for t in range(targets):
            if v == t:
                continue
            for i in range(z.shape[1]):
                positive = (z[v, i] @ z[t, i] / temperature).exp()
                others = [j for j in range(z.shape[1]) if j != i]
                negative = sum((z[v, i] @ z[u, j] / temperature).exp() for u in range(targets) for j in others)
                losses.append(-(positive / (positive + negative)).log())
    return 2 * torch.stack(losses).mean()


@pytest.mark.parametrize(("views", "targets"), [(2, 2), (5, 2), (3, 3), (3, 1)])
def test_pairs_are_as_documented(views: int, targets: int) -> None:
    z = torch.randn(views, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    loss, expected = nt_xent(z, targets, 0.2), by_hand(z, targets, 0.2)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(x, z)[0] for x in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-14)


def test_local_views_predict_and_are_no_targets() -> None:
    """Moving one local view of one image changes nothing but that view's own terms."""
    z = torch.randn(3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    (gradient,) = torch.autograd.grad(nt_xent(z, 2, 0.2), z)
    assert (gradient[2].norm(dim=-1) > 1e-6).all()
    moved = z.detach().clone()
    moved[2, 0] += 1.0
    (after,) = torch.autograd.grad(nt_xent(leaf := moved.requires_grad_(), 2, 0.2), leaf)
    torch.testing.assert_close(after[2, 1:], gradient[2, 1:], rtol=1e-12, atol=0)


def test_the_method_is_its_loss_on_the_projections(net: Callable[[], Any], random_views: Callable[..., Views]) -> None:
    method = SimCLR(SimCLRParams(out=5), net(), Context(100, 6))
    views = random_views((2, 16))
    output = method(views, Step(0, 10, 5))
    both = method.student(torch.cat(views.globals))  # one batch, so one set of batch-norm statistics
    torch.testing.assert_close(output.loss, nt_xent(both.unflatten(0, (2, -1)), 2, 0.1))
    torch.testing.assert_close(output.embedding, both[:6].detach())


def test_head_and_start_are_the_authors(net: Callable[[], Any]) -> None:
    backbone = net()
    backbone.dim = 400
    for layers in (2, 3):
        head = SimCLR(SimCLRParams(head_layers=layers), backbone, Context(100, 6)).student.head
        linears = [layer for layer in head if isinstance(layer, nn.Linear)]
        norms = [layer for layer in head if isinstance(layer, nn.BatchNorm1d)]
        assert [(x.in_features, x.out_features) for x in linears] == [(400, 400)] * (layers - 1) + [(400, 128)]
        assert all(x.bias is None for x in linears) and len(norms) == layers
        assert all(abs(float(x.weight.detach().std()) / 0.01 - 1) < 0.03 for x in linears)
        assert norms[-1].weight.requires_grad and not norms[-1].bias.requires_grad
        assert norms[0].bias.requires_grad


def test_one_view_has_nothing_to_compare(net: Callable[[], Any]) -> None:
    with pytest.raises(SpecError, match="1 view of each image"):
        SimCLR(SimCLRParams(), net(), Context(100, 6, globals=1))
    SimCLR(SimCLRParams(), net(), Context(100, 6, globals=1, locals=2))
