"""Many linear classifiers on one feature, each with its own learning rate, trained together by SGD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ...runtime.device import fast_matmul

Rule = Literal["sgd", "nesterov", "larc"]


class Heads:
    """Classifiers (L, C, d) of features (B, d), one for each of L learning rates, beginning alike.

    All logits are one matrix product and all gradients another, so that L rates cost little more than one. Each head
    ends where it would by itself: they share nothing but the images.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        rates: Sequence[float],
        *,
        rule: Rule = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        std: float = 0.01,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> None:
        one = std * torch.randn(classes, width, generator=torch.Generator().manual_seed(seed))
        self.weight = one.expand(len(rates), -1, -1).clone().to(device)  # (L, C, d)
        self.bias = torch.zeros(len(rates), classes, device=device)  # (L, C)
        self.rates = torch.tensor(rates, device=device)
        self.rule, self.momentum, self.weight_decay = rule, momentum, weight_decay
        self._moments = [torch.zeros_like(self.weight), torch.zeros_like(self.bias)]

    @property
    def finite(self) -> Tensor:
        """Return (L,) whether a head still holds numbers, which too high a rate ends."""
        return torch.isfinite(self.weight).flatten(1).all(1)

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits (L, B, C) of ``x`` (B, d)."""
        return (
            torch.addmm(self.bias.flatten(), x, self.weight.flatten(0, 1).T)
            .view(len(x), *self.bias.shape)
            .movedim(1, 0)
        )

    def step(self, x: Tensor, labels: Tensor, factor: float) -> None:
        """Take one step on the mean cross-entropy of ``x`` (B, d), at ``factor`` times each rate."""
        with fast_matmul(x):
            self._step(x, labels, factor)

    def _step(self, x: Tensor, labels: Tensor, factor: float) -> None:
        flat = torch.addmm(self.bias.flatten(), x, self.weight.flatten(0, 1).T)  # (B, L C)
        error = flat.view(len(x), *self.bias.shape).softmax(2)  # (B, L, C)
        own = labels[:, None, None].expand(-1, len(self.rates), 1)
        # The gradient of the cross-entropy by hand: autograd would hold the logits thrice.
        error.scatter_add_(2, own, error.new_full((1, 1, 1), -1.0).expand(own.shape)).div_(len(x))
        rows, tensors = error.flatten(1).T, (self.weight, self.bias)
        if self.rule == "sgd":  # its momentum takes the gradient up within the product
            self._moments[0].flatten(0, 1).addmm_(rows, x, beta=self.momentum)
            self._moments[1].mul_(self.momentum).add_(error.sum(0))
            updates = [m.add_(w, alpha=self.weight_decay) for w, m in zip(tensors, self._moments, strict=True)]
        else:
            gradients = ((rows @ x).view_as(self.weight), error.sum(0))
            updates = [self._update(*part) for part in zip(tensors, gradients, self._moments, strict=True)]
        for w, update in zip(tensors, updates, strict=True):
            w.addcmul_(update, self.rates.view(-1, *[1] * (w.ndim - 1)), value=-factor)

    def _update(self, w: Tensor, g: Tensor, m: Tensor) -> Tensor:
        g = _larc(w, g, self.weight_decay) if self.rule == "larc" else g.add_(w, alpha=self.weight_decay)
        m.mul_(self.momentum).add_(g)
        return g.add_(m, alpha=self.momentum) if self.rule == "nesterov" else m


def _larc(w: Tensor, g: Tensor, decay: float, trust: float = 0.001) -> Tensor:
    """Return NVIDIA/apex LARC's update without clipping, head by head."""
    axes = tuple(range(1, w.ndim))
    wn, gn = (torch.linalg.vector_norm(t, dim=axes, keepdim=True) for t in (w, g))
    some = (wn > 0) & (gn > 0)
    return torch.where(some, trust * wn / (gn + decay * wn + 1e-8) * (g + decay * w), g)
