"""Parameter groups to optimizer: AdamW and SGD of torch, LARS and LARC of our own; and the clipping of gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from ..layers.trust import larc
from ..methods.base import Method
from ..spec.schema import OptimSpec

Grouped = dict[str, Any]


def build_optimizer(spec: OptimSpec, method: Method[Any]) -> Optimizer:
    """Return the optimizer that ``spec`` names over ``method.groups()``.

    Its ``param_groups`` keep ``names``, ``decay``, ``adapt``, ``scheduled`` and ``lr_scale``; learning rate and weight
    decay in them are placeholders until the first step writes them. All state is tensors, one dict a parameter.
    """
    groups: list[Grouped] = [
        {
            "params": [p for _, p in group.params],
            "names": [name for name, _ in group.params],
            "decay": group.decay,
            "adapt": group.adapt,
            "scheduled": group.scheduled,
            "lr_scale": group.lr_scale,
        }
        for group in method.groups()
        if group.params
    ]
    if spec.name == "adamw":
        return AdamW(groups, lr=spec.lr, betas=spec.betas, weight_decay=0.0, fused=True)
    if spec.name == "sgd":
        # Not fused: that kernel takes a parameter without momentum for the sign that none has any, and a layer that
        # was frozen at first is such a parameter.
        return SGD(groups, lr=spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, foreach=True)
    if spec.name == "lars":
        return LARS(groups, spec.lr, spec.momentum, spec.trust, lr_in_momentum=spec.lr_in_momentum)
    return LARC(groups, spec.lr, spec.momentum, spec.trust)


class LARS(Optimizer):
    """SGD with momentum whose step in each tensor is a fixed share of the tensor's norm (You et al., arXiv 1708.03888).

    g <- g + weight_decay * w; in groups that adapt, g <- trust * |w| / |g| * g (unchanged where a norm is zero);
    m <- momentum * m + g; w <- w - lr * m. So do Barlow Twins, VICReg, MoCo v3, MAE, DINO and BYOL, which differ only
    in what adapts. ``lr_in_momentum``: m <- momentum * m + lr * g; w <- w - m, as google-research/simclr does
    (lars_optimizer.py); the two part ways when lr changes. Weight decay is what the group holds at the step.
    """

    def __init__(
        self,
        params: Sequence[Grouped],
        lr: float,
        momentum: float = 0.9,
        trust: float = 0.001,
        weight_decay: float = 0.0,
        lr_in_momentum: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "adapt": True})
        self.trust = trust
        self.lr_in_momentum = lr_in_momentum

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if params:
                self._move(params, group)
        return loss

    def _move(self, params: list[Tensor], group: Grouped) -> None:
        lr, inside = group["lr"], self.lr_in_momentum
        moments = [self._moment(p) for p in params]
        torch._foreach_mul_(moments, group["momentum"])
        torch._foreach_add_(moments, self._updates(params, group), alpha=lr if inside else 1.0)
        torch._foreach_add_(params, moments, alpha=-1.0 if inside else -lr)

    def _moment(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        moment: Tensor = state["momentum_buffer"]
        return moment

    def _updates(self, params: list[Tensor], group: Grouped) -> list[Tensor]:
        grads = [p.grad for p in params if p.grad is not None]
        updates = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        if group["adapt"]:
            w, g = _norms(params), _norms(updates)
            _scale(updates, torch.where((w > 0) & (g > 0), self.trust * w / g, 1.0))
        return updates


class LARC(LARS):
    """LARS as apex has it (NVIDIA/apex, apex/parallel/LARC.py, ``clip=False``), which SwAV trains with.

    g <- trust * |w| / (|g| + weight_decay * |w| + 1e-8) * (g + weight_decay * w), in place of LARS' first two lines;
    a tensor whose weight or gradient has norm zero is neither decayed nor adapted. Biases and norms adapt too where
    the method's groups let them.
    """

    def _updates(self, params: list[Tensor], group: Grouped) -> list[Tensor]:
        decay = group["weight_decay"]
        grads = [p.grad for p in params if p.grad is not None]
        if not group["adapt"]:
            return list(torch._foreach_add(grads, params, alpha=decay))
        scale, own = larc(_norms(params), _norms(grads), decay, self.trust)
        updates = list(torch._foreach_mul(params, list(own.unbind())))
        torch._foreach_add_(updates, grads)
        _scale(updates, scale)
        return updates


def clip_gradients(method: nn.Module, limit: float, each: bool = False) -> Tensor:
    """Scale gradients down to norm ``limit``; return their whole norm before, a scalar tensor.

    ``each``: every tensor by itself, as DINO does (facebookresearch/dino, utils.py ``clip_gradients``), instead of all
    together. The factor is limit / (norm + 1e-6) in both.
    """
    grads = [p.grad for p in method.parameters() if p.grad is not None]
    norms = _norms(grads)
    whole: Tensor = torch.linalg.vector_norm(norms)
    factor = (limit / ((norms if each else whole) + 1e-6)).clamp(max=1.0)
    if each:
        _scale(grads, factor)
    else:
        torch._foreach_mul_(grads, factor)
    return whole


def _norms(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of each tensor, (n,)."""
    return torch.stack(torch._foreach_norm(list(tensors)))


def _scale(tensors: Sequence[Tensor], factors: Tensor) -> None:
    torch._foreach_mul_(list(tensors), list(factors.unbind()))
