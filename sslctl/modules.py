"""Parts that objectives share; all their state is in parameters and buffers, so a state_dict holds all of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import distributed


class Encoder(nn.Module):
    """A backbone and the head that training puts on it: (B, C, H, W) -> (B, D)."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x))
        return out


def mlp(*widths: int, norm: bool = True, last_norm: bool = False, bias: bool = False, last_bias: bool | None = None) -> nn.Sequential:
    """Linear, then (BatchNorm, ReLU, Linear) for every further width.

    ``norm`` False leaves the BatchNorms out; ``last_norm`` ends with a BatchNorm without affine part; ``bias`` is of
    the hidden Linears, ``last_bias`` of the last one (by default: it has one unless a BatchNorm follows).
    """
    if last_bias is None:
        last_bias = not last_norm
    layers: list[nn.Module] = []
    for i, (n, m) in enumerate(zip(widths, widths[1:], strict=False)):
        if i < len(widths) - 2:
            layers += [nn.Linear(n, m, bias=bias), *([nn.BatchNorm1d(m)] if norm else []), nn.ReLU(inplace=True)]
        else:
            layers += [nn.Linear(n, m, bias=last_bias), *([nn.BatchNorm1d(m, affine=False)] if last_norm else [])]
    return nn.Sequential(*layers)


def encode(net: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """``net`` of every view, (V, B, D): one forward for each run of views of one size.

    Views of one size share batch-norm statistics, as in SwAV and DINO; a method that wants statistics per view calls
    ``encode`` once a view.
    """
    out: list[Tensor] = []
    start = 0
    for end in range(1, len(views) + 1):
        if end == len(views) or views[end].shape != views[start].shape:
            out += net(torch.cat(list(views[start:end]))).chunk(end - start)
            start = end
    return torch.stack(out)


class EMA(nn.Module):
    """A copy of ``student`` that follows its parameters: teacher <- m * teacher + (1 - m) * student.

    Buffers (batch-norm statistics) come from the copy's own forward passes, as in the authors' codes.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.net = copy.deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        torch._foreach_lerp_(list(self.net.parameters()), list(student.parameters()), 1 - momentum)


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
        keys = distributed.gather(keys)
        at = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.keys[at] = keys.to(self.keys.dtype)
        self.pointer.copy_((self.pointer + len(keys)) % len(self.keys))


class Center(nn.Module):
    """Moving mean of a teacher's outputs over every process (DINO): ``value`` is (K,)."""

    value: Tensor

    def __init__(self, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(dim))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """``x``: (..., K), averaged over all but the last axis."""
        batch = distributed.mean(x.flatten(0, -2).mean(0).to(self.value.dtype))
        self.value.mul_(self.momentum).add_(batch, alpha=1 - self.momentum)


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Soft assignments of B samples to K prototypes, equally used: (B, K) -> (B, K), rows sum to one.

    SwAV's ``distributed_sinkhorn`` (facebookresearch/swav, main_swav.py). The largest score is taken off first, which
    cancels in exact arithmetic and keeps exp within range.
    """
    largest = scores.max()
    if distributed.world_size() > 1:
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    q = torch.exp((scores - largest) / epsilon)  # (B, K)
    samples = len(q) * distributed.world_size()
    q = q / distributed.total(q.sum())
    for _ in range(iterations):
        q = q / (distributed.total(q.sum(0)) * q.shape[1])
        q = q / (q.sum(1, keepdim=True) * samples)
    return q * samples
