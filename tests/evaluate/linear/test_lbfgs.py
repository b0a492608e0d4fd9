"""The minimiser finds the least of convex functions, in few steps where the curvature is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sslctl.evaluate.linear.lbfgs import minimise


def quadratic(matrix: Tensor, target: Tensor, calls: list[int]) -> Callable[[Tensor], tuple[float, Tensor]]:
    def function(x: Tensor) -> tuple[float, Tensor]:
        calls.append(1)
        off = matrix @ (x - target)
        return float((x - target) @ off) / 2, off

    return function


def curved(condition: float, n: int = 20) -> Tensor:
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    return q @ torch.logspace(0, torch.tensor(condition).log10().item(), n, dtype=torch.float64).diag() @ q.T


@pytest.mark.parametrize("condition", [1.0, 10.0, 100.0])
def test_a_quadratic_bowl_is_left_at_its_bottom(condition: float) -> None:
    target = torch.linspace(-1, 1, 20, dtype=torch.float64)
    at, reached = minimise(
        quadratic(curved(condition), target, []), torch.zeros(20).double(), lambda: lambda g: g, 1e-9, 500
    )
    assert reached
    torch.testing.assert_close(at, target, rtol=0, atol=1e-7)


def test_the_inverse_of_the_curvature_makes_it_one_step() -> None:
    matrix, target, calls = curved(1e4), torch.ones(20).double(), []  # type: ignore[var-annotated]
    inverse = torch.linalg.inv(matrix)
    at, reached = minimise(
        quadratic(matrix, target, calls), torch.zeros(20).double(), lambda: lambda g: inverse @ g, 1e-6, 9
    )
    assert reached and len(calls) == 2
    torch.testing.assert_close(at, target)


def test_a_start_at_the_bottom_stays_and_asks_for_no_curvature() -> None:
    def never() -> Callable[[Tensor], Tensor]:
        raise AssertionError("asked")

    start = torch.ones(20).double()
    at, reached = minimise(quadratic(curved(10.0), start, []), start, never, 1e-12, 9)
    assert reached and at is start


def test_too_few_iterations_are_told() -> None:
    start = torch.zeros(20).double()
    function = quadratic(curved(1e4), torch.ones(20).double(), [])
    at, reached = minimise(function, start, lambda: lambda g: 1e-4 * g, 1e-9, 3)
    assert not reached and function(at)[0] < function(start)[0]


def test_logistic_loss_is_left_where_torchs_own_minimiser_leaves_it() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 5, generator=g).double(), (torch.rand(200, generator=g) < 0.4).double()

    def loss(w: Tensor) -> Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(x @ w, y) + 0.01 * w.square().sum()

    def function(w: Tensor) -> tuple[float, Tensor]:
        w = w.detach().requires_grad_()
        value = loss(w)
        (gradient,) = torch.autograd.grad(value, w)
        return value.item(), gradient

    at, reached = minimise(function, torch.zeros(5).double(), lambda: lambda g: 4 * g, 1e-8, 200)
    theirs = torch.zeros(5).double().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [theirs], max_iter=200, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(theirs)
        value.backward()
        return value

    optimizer.step(closure)
    assert reached
    torch.testing.assert_close(at, theirs.detach(), rtol=1e-4, atol=1e-6)
