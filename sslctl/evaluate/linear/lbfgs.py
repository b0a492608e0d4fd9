"""L-BFGS for convex functions whose curvature is roughly known beforehand."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

MEMORY = 10  # steps remembered
DECREASE = 1e-4  # of what the slope promises, that a step must bring (Armijo)
SHORTEST = 1e-4  # of a whole step; where even that brings nothing, numbers are too coarse to go on

Function = Callable[[Tensor], tuple[float, Tensor]]  # value and gradient


def minimise(
    function: Function,
    start: Tensor,
    preconditioner: Callable[[], Callable[[Tensor], Tensor]],
    tolerance: float,
    iterations: int,
) -> tuple[Tensor, bool]:
    """Return where ``function`` is least, searching from ``start``, and whether ``iterations`` were enough.

    It is where no slope is above ``tolerance``. ``preconditioner``, called once ``function`` was at ``start``, gives
    what multiplies a gradient by a rough inverse of the curvature, symmetric and positive: it stands where the textbook
    has a multiple of the identity (Nocedal and Wright, Numerical Optimization, algorithm 7.4), so that whole steps fit
    from the first on.
    """
    at = start
    value, gradient = function(at)
    if float(gradient.abs().max()) <= tolerance:
        return at, True
    precondition = preconditioner()
    past: list[tuple[Tensor, Tensor, float]] = []
    for _ in range(iterations):
        direction = _direction(gradient, past, precondition)
        slope = _dot(gradient, direction)
        step = 1.0
        while True:
            new = at - step * direction
            new_value, new_gradient = function(new)
            if new_value <= value - DECREASE * step * slope:
                break
            step /= 2
            if step < SHORTEST:
                return at, True
        moved, turned = new - at, new_gradient - gradient
        if (curvature := _dot(moved, turned)) > 0:
            past = [*past, (moved, turned, 1 / curvature)][-MEMORY:]
        at, value, gradient = new, new_value, new_gradient
        if float(gradient.abs().max()) <= tolerance:
            return at, True
    return at, False


def _direction(
    gradient: Tensor, past: list[tuple[Tensor, Tensor, float]], precondition: Callable[[Tensor], Tensor]
) -> Tensor:
    q = gradient.clone()
    shares = []
    for moved, turned, inverse in reversed(past):
        shares.append(inverse * _dot(moved, q))
        q -= shares[-1] * turned
    q = precondition(q)
    if past:
        moved, turned, inverse = past[-1]
        q *= 1 / (inverse * _dot(turned, precondition(turned)))
    for (moved, turned, inverse), share in zip(past, reversed(shares), strict=True):
        q += (share - inverse * _dot(turned, q)) * moved
    return q


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum())
