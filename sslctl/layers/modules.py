"""Networks that objectives share; all their state is in parameters and buffers, so a state_dict holds all of it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import distributed
from ..schedule import Step
from .batch_norm import NormsInGroups

P = ParamSpec("P")
relu = functools.partial(nn.ReLU, inplace=True)


class Encoder(nn.Module):
    """A backbone and the head that training puts on it: (B, C, H, W) -> (B, D)."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x))
        return out


def mlp(
    *widths: int,
    norm: Callable[[int], nn.Module] | None = nn.BatchNorm1d,
    last_norm: bool = False,
    bias: bool = False,
    last_bias: bool | None = None,
    activation: Callable[[], nn.Module] = relu,
) -> nn.Sequential:
    """Linear, then (norm, activation, Linear) for every further width.

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


def encode(net: Encoder, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Features (V, B, D) and embeddings (V, B, K) of V views.

    The backbone runs once for each run of views of one size, the head once. So views of one size share the backbone's
    batch-norm statistics and all views the head's, as in SimCLR, SwAV and DINO; ``encode_each`` keeps them apart.
    """
    features: list[Tensor] = []
    start = 0
    for end in range(1, len(views) + 1):
        if end == len(views) or views[end].shape != views[start].shape:
            features.append(net.backbone(torch.cat(list(views[start:end]))))
            start = end
    h = torch.cat(features)  # (V·B, D)
    z: Tensor = net.head(h)
    return h.view(len(views), -1, h.shape[1]), z.view(len(views), -1, z.shape[1])


def encode_each(net: Encoder, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """``encode`` one view after another: each has batch-norm statistics of its own (BYOL, SimSiam, Barlow Twins)."""
    h, z = zip(*(encode(net, [view]) for view in views), strict=True)
    return torch.cat(h), torch.cat(z)


def encode_in_groups(net: Encoder, views: Sequence[Tensor], size: int) -> tuple[Tensor, Tensor]:
    """``encode`` in parts of about ``size`` images, each with batch-norm statistics of its own, as if on many GPUs.

    Views of one size take one pass, in which batch norm alone goes from part to part. Those of several sizes take a
    pass for each part, so that running statistics see all sizes in turn.
    """
    parts = list(zip(*(view.chunk(max(1, len(view) // max(2, size))) for view in views), strict=True))
    if len(parts) == 1 or len({view.shape for view in views}) > 1:
        each = [encode(net, part) for part in parts]
        return torch.cat([h for h, _ in each], 1), torch.cat([z for _, z in each], 1)
    rows = sum(map(len, parts[0]))
    with NormsInGroups(rows):
        h, z = encode(net, [torch.cat([view for part in parts for view in part])])

    def by_view(x: Tensor) -> Tensor:  # (1, V·B, D) -> (V, B, D)
        return torch.cat([part.view(len(views), -1, part.shape[1]) for part in torch.split(x[0], rows)], 1)

    return by_view(h), by_view(z)


def encode_shuffled(net: Encoder, views: Sequence[Tensor], size: int, order: Tensor) -> Tensor:
    """Embeddings as of ``encode_in_groups``, of the images of all processes in ``order`` (N,), put back into place."""
    rank, processes = distributed.rank(), distributed.world_size()
    mine = order.chunk(processes)[rank]
    _, z = encode_in_groups(net, [distributed.gather(view)[mine] for view in views], size)
    z = distributed.gather(z.transpose(0, 1))[order.argsort()]  # (N, V, D)
    return z.chunk(processes)[rank].transpose(0, 1)


def full_precision(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """``function`` (of at least one tensor) run outside autocast, its half-precision arguments raised to float32.

    For what loses its meaning in half precision: softmax at a low temperature, sums over a batch, Sinkhorn.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        tensors = [a for a in args if isinstance(a, Tensor)]
        half = (torch.float16, torch.bfloat16)
        raised: list[object] = [a.float() if isinstance(a, Tensor) and a.dtype in half else a for a in args]
        with torch.autocast(tensors[0].device.type, enabled=False):
            return function(*raised, **kwargs)  # type: ignore[arg-type]

    return run


@full_precision
def unit(x: Tensor) -> Tensor:
    """``x`` at length one along its last axis."""
    return F.normalize(x, dim=-1)


def generator(step: Step, device: torch.device | str = "cpu") -> torch.Generator:
    """What an objective draws from at a step of a run; the same on every process."""
    return torch.Generator(device).manual_seed(step.seed * 1_000_003 + step.index)


def shuffle(images: int, step: Step, device: torch.device) -> Tensor:
    """An order of the images of all processes, so many on each, drawn for the step on the device; alike everywhere."""
    return torch.randperm(images * distributed.world_size(), generator=generator(step, device), device=device)


class WeightNormed(nn.Module):
    """A Linear without bias; its rows point along ``weight_v`` (K, D), ``weight_g`` (K, 1) long, at first one."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(out, 1))
        self.weight_v = nn.Parameter(nn.Linear(dim, out, bias=False).weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch._weight_norm(self.weight_v, self.weight_g, 0))


class EMA(nn.Module):
    """A copy of ``student`` that follows its parameters: teacher <- m * teacher + (1 - m) * student.

    Buffers (batch-norm statistics) come from the copy's own forward passes, as in the authors' codes.
    """

    def __init__(self, student: Encoder) -> None:
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
        keys = distributed.gather(keys)[-len(self.keys) :]
        at = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.keys[at] = keys.to(self.keys.dtype)
        self.pointer.copy_((self.pointer + len(keys)) % len(self.keys))

    def age(self, step: Step, keys: Tensor) -> Tensor:
        """How many steps ago the oldest of its keys was made, where each step makes ``keys`` (..., D) a process."""
        made = keys[..., 0].numel() * distributed.world_size()
        return torch.tensor(min(step.index, len(self.keys) / made))


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
        batch = distributed.mean(x.flatten(0, -2).mean(0, dtype=self.value.dtype))
        self.value.mul_(self.momentum).add_(batch, alpha=1 - self.momentum)
