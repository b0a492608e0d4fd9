"""State that objectives keep in buffers: the queue of keys, the centre of a teacher's outputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import distributed
from ..schedule import Step


class Queue(nn.Module):
    """The last ``size`` keys of ``dim`` numbers, unit length at the start, oldest overwritten first (MoCo)."""

    keys: Tensor
    pointer: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, keys: Tensor) -> None:
        keys = distributed.gather(keys)[-len(self.keys) :]
        at = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.keys[at] = keys.to(self.keys.dtype)
        self.pointer.copy_((self.pointer + len(keys)) % len(self.keys))

    def age(self, step: Step, keys: Tensor) -> Tensor:
        """Return how many steps ago the oldest key was made, where a step makes ``keys`` (..., D) on each process."""
        per_step = keys[..., 0].numel() * distributed.world_size()
        return torch.tensor(min(step.index, len(self.keys) / per_step))


class Center(nn.Module):
    """Moving mean of a teacher's outputs over every process (DINO): ``value`` is (K,)."""

    value: Tensor

    def __init__(self, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(dim))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Move towards the mean of ``x`` (..., K) over all but the last axis and over processes."""
        batch = distributed.mean(x.flatten(0, -2).mean(0, dtype=self.value.dtype))
        self.value.mul_(self.momentum).add_(batch, alpha=1 - self.momentum)
