"""Rank, world size and the few collectives that objectives need; each is the identity on one process."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import SslctlError

T = TypeVar("T")


def join(device: torch.device) -> None:
    """Enter the group of processes that torchrun started, if it did; it is left at exit.

    Tensors on CUDA travel by NCCL, all else by gloo, so that whatever is gathered may lie on the CPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not dist.is_available() or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    atexit.register(dist.destroy_process_group)


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


def collect(value: T) -> list[T]:
    """Return ``value`` of every process, in the order of ranks; anything that pickles."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def by_first(work: Callable[[], T]) -> T:
    """Run ``work`` on the first process alone, and return its result, or raise its SslctlError, on all."""
    if world_size() == 1:
        return work()
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = work()
        except SslctlError as e:
            answer[1] = e
    dist.broadcast_object_list(answer)
    if answer[1] is not None:
        raise answer[1]
    result: T = answer[0]
    return result


def largest(value: int) -> int:
    """Return the largest ``value`` of any process, so that all agree."""
    if world_size() == 1:
        return value
    tensor = torch.tensor(value)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def mean(x: Tensor) -> Tensor:
    """Return the mean of ``x`` over processes, with gradient."""
    return total(x) / world_size()


def total(x: Tensor) -> Tensor:
    """Return the sum of ``x`` over processes, with gradient."""
    if world_size() == 1:
        return x
    from torch.distributed.nn.functional import all_reduce

    out: Tensor = all_reduce(x)  # type: ignore[no-untyped-call]
    return out


def gather(x: Tensor) -> Tensor:
    """Return ``x`` of every process along the first axis, by rank, with gradient: (B, ...) -> (W·B, ...)."""
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
