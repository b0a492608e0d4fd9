"""Rank, world size and the few collectives that objectives need; each is the identity on one process."""

from __future__ import annotations

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

    return all_reduce(x)


def gather(x: Tensor) -> Tensor:
    """``x`` of every process along the first axis, in the order of ranks, with gradient: (B, ...) -> (W·B, ...)."""
    if world_size() == 1:
        return x
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(x))
