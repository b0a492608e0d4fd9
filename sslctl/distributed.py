"""Rank, world size and the few collectives that objectives need; each is the identity on one process."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


def mean(x: Tensor) -> Tensor:
    """Mean of ``x`` over processes, with gradient."""
    return total(x) / world_size()


def total(x: Tensor) -> Tensor:
    """Sum of ``x`` over processes, with gradient."""
    if world_size() == 1:
        return x
    from torch.distributed.nn.functional import all_reduce

    out: Tensor = all_reduce(x)  # type: ignore[no-untyped-call]
    return out


def gather(x: Tensor) -> Tensor:
    """``x`` of every process along the first axis, in the order of ranks, with gradient: (B, ...) -> (W·B, ...)."""
    if world_size() == 1:
        return x
    out: Tensor = _Gather.apply(x)
    return out


class _Gather(torch.autograd.Function):
    """All-gather whose backward pass sums every process's gradient.

    torch.distributed.nn's own mixes up a gradient that is not contiguous, on gloo (torch 2.14).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.chunk(world_size())[rank()]
