"""Heads: multi-layer perceptrons, and the weight-normed linear layer of prototypes."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

relu = functools.partial(nn.ReLU, inplace=True)


def mlp(
    *widths: int,
    norm: Callable[[int], nn.Module] | None = nn.BatchNorm1d,
    last_norm: bool = False,
    bias: bool = False,
    last_bias: bool | None = None,
    activation: Callable[[], nn.Module] = relu,
) -> nn.Sequential:
    """Build Linear, then (norm, activation, Linear) for every further width.

    ``norm`` None leaves the norms out; ``last_norm`` ends with a BatchNorm without affine part; ``bias`` is of the
    hidden Linears, ``last_bias`` of the last one (by default: it has one unless a BatchNorm follows).
    """
    if last_bias is None:
        last_bias = not last_norm
    layers: list[nn.Module] = []
    for i, (n, m) in enumerate(zip(widths, widths[1:], strict=False)):
        if i < len(widths) - 2:
            layers += [nn.Linear(n, m, bias=bias), *([norm(m)] if norm else []), activation()]
        else:
            layers += [nn.Linear(n, m, bias=last_bias), *([nn.BatchNorm1d(m, affine=False)] if last_norm else [])]
    return nn.Sequential(*layers)


class WeightNormed(nn.Module):
    """A Linear without bias whose rows have direction ``weight_v`` (K, D) and length ``weight_g`` (K, 1)."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(out, 1))
        self.weight_v = nn.Parameter(nn.Linear(dim, out, bias=False).weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch._weight_norm(self.weight_v, self.weight_g, 0))
