"""Batch norm with the statistics of a batch that lies on several processes, or of groups within a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from ..runtime import distributed


def share_statistics(net: nn.Module, device: torch.device) -> None:
    """Give every batch norm in ``net``, in place, the statistics of all processes, of equal batches.

    Parameters, buffers and their names stay. On CUDA they are torch's own SyncBatchNorm, which is for nothing else.
    """
    if device.type == "cuda":
        convert_sync_batchnorm(net)
        return
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                setattr(parent, name, SharedBatchNorm(child))


class SharedBatchNorm(nn.Module):
    """A batch norm (N, C, ...) -> (N, C, ...) over all processes, with timm's activation after it."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.eps, self.momentum = norm.eps, norm.momentum
        for name in ("weight", "bias"):
            self.register_parameter(name, getattr(norm, name))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.drop: nn.Module = getattr(norm, "drop", nn.Identity())
        self.act: nn.Module = getattr(norm, "act", nn.Identity())
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        s: Any = self  # its parameters and buffers may be None
        wide = x if x.dtype == torch.float64 else x.float()
        shape = (1, -1, *[1] * (x.ndim - 2))
        if self.training or s.running_mean is None:
            over = [axis for axis in range(x.ndim) if axis != 1]
            mean = distributed.mean(wide.mean(over))  # (C,)
            var = distributed.mean((wide - mean.view(shape)).square().mean(over))
            self._follow(mean.detach(), var.detach(), x.numel() // x.shape[1] * distributed.world_size())
        else:
            mean, var = s.running_mean, s.running_var
        out = (wide - mean.view(shape)) * (var + self.eps).rsqrt().view(shape)
        if s.weight is not None:
            out = out * s.weight.view(shape) + s.bias.view(shape)
        done: Tensor = self.act(self.drop(out.to(x.dtype)))
        return done

    def _follow(self, mean: Tensor, var: Tensor, n: int) -> None:
        s: Any = self
        if not self.training or s.running_mean is None:
            return
        s.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / float(s.num_batches_tracked)
        s.running_mean.lerp_(mean.to(s.running_mean.dtype), share)
        s.running_var.lerp_((var * n / max(1, n - 1)).to(s.running_var.dtype), share)


class NormsInGroups(TorchFunctionMode):
    """A mode in which batch norm has statistics of ``rows`` consecutive images at a time.

    Running statistics follow group after group, as in a pass for each. The network itself stays as it is. Norms that
    share statistics of several processes do not heed it.
    """

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func is not F.batch_norm:
            return func(*args, **options)
        x, *rest = args
        return torch.cat([func(group, *rest, **options) for group in x.split(self.rows)])
