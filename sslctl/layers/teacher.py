"""The teacher: a copy of the student that follows it as a moving average."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from .encoder import Encoder


class EMA(nn.Module):
    """A copy of ``student`` that follows its parameters: teacher <- m * teacher + (1 - m) * student.

    Buffers (batch-norm statistics) come from the copy's own forward passes, as in the authors' codes.
    """

    def __init__(self, student: Encoder) -> None:
        super().__init__()
        self.net = copy.deepcopy(student).requires_grad_(False)  # under this name in checkpoints

    @property
    def encoder(self) -> Encoder:
        """The copy itself: backbone and head."""
        return self.net

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        torch._foreach_lerp_(list(self.net.parameters()), list(student.parameters()), 1 - momentum)
